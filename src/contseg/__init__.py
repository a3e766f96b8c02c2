"""Continual semantic segmentation."""
