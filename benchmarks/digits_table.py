"""The sanity table: methods on the demo's digits, 5-1, over several seeds; writes docs/digits-results.md.

    python -m benchmarks.digits_table                                  # all rows; goes on where it was stopped
    python -m benchmarks.digits_table --rows mib,plop --seeds 0        # some of it; the page still shows all
    python -m benchmarks.digits_table --only-table                     # the page of what is finished

A run whose recipe changed since is trained anew. Everything lives in `--out`; delete it to begin again.
"""

from pathlib import Path

from benchmarks.table_command import FORGETTING, Table, main
from contseg.sweeps.cells import Row

SHORT = ("training.epochs=[9, 5]",)  # the demo's 18 and 12 would take more than an hour for all rows
CLOSED_FORM = ("training.epochs=[9, 0]",)
IDRNET = (*SHORT, "network.head=fcn", "network.idrnet={attention_width: 32}")

# From no remedy to the upper bound.
SECTIONS = {
    "Methods": {
        "finetune": Row("finetune", "digits/finetune_5-1", SHORT),
        "finetune-0.03": Row("finetune, rate 0.03", "digits/finetune_5-1", (*SHORT, "training.lr_later=0.03")),
        "frozen": Row("frozen", "digits/frozen_5-1", SHORT),
        "dft": Row("DFT*", "digits/dft_5-1", SHORT),
        "ewc": Row("EWC", "digits/ewc_5-1", SHORT),
        "pi": Row("PI", "digits/pi_5-1", SHORT),
        "rw": Row("RW", "digits/rw_5-1", SHORT),
        "lwf": Row("LwF", "digits/lwf_5-1", SHORT),
        "lwf-mc": Row("LwF-MC", "digits/lwf-mc_5-1", SHORT),
        "ilt": Row("ILT", "digits/ilt_5-1", SHORT),
        "mib": Row("MiB", "digits/mib_5-1", SHORT),
        "mib-ewf": Row("MiB with EWF", "digits/mib-ewf_5-1", SHORT),
        "plop": Row("PLOP", "digits/plop_5-1", SHORT),
        "plop-ewf": Row("PLOP with EWF", "digits/plop-ewf_5-1", SHORT),
        "rcil": Row("RCIL", "digits/rcil_5-1", SHORT),
        "reminder": Row("REMINDER", "digits/reminder_5-1", SHORT),
        "sdr-alone": Row("SDR", "digits/sdr_5-1", (*SHORT, "method.on=alone")),
        "sdr": Row("SDR on MiB", "digits/sdr_5-1", SHORT),
        "ucd": Row("UCD", "digits/ucd_5-1", SHORT),
        "ssul": Row("SSUL", "digits/ssul_5-1", SHORT),
        "ssul-m": Row("SSUL-M", "digits/ssul-m_5-1", SHORT),
        "idec": Row("IDEC", "digits/idec_5-1", SHORT),
        "lag": Row("LAG", "digits/lag_5-1", SHORT),
        "dkd": Row("DKD", "digits/dkd_5-1", SHORT),
        "dkd-m": Row("DKD-M", "digits/dkd-m_5-1", SHORT),
        "star": Row("STAR", "digits/star_5-1", SHORT),
        "star-m": Row("STAR-M", "digits/star-m_5-1", SHORT),
        "adapter": Row("Adapter", "digits/adapter_5-1", SHORT),
        "mbs": Row("MBS", "digits/mbs_5-1", SHORT),
        "barm": Row("BARM", "digits/barm_5-1", SHORT),
        "cfsseg": Row("CFSSeg", "digits/cfsseg_5-1", CLOSED_FORM),
        "joint": Row("joint", "digits/joint", ("training.epochs=13",)),
    },
    "Methods with IDRNet over FCN": {
        "idrnet-finetune": Row("finetune", "digits/finetune_5-1", IDRNET),
        "idrnet-mib": Row("MiB", "digits/mib_5-1", IDRNET),
        "idrnet-plop": Row("PLOP", "digits/plop_5-1", IDRNET),
        "idrnet-sdr": Row("SDR on MiB", "digits/sdr_5-1", IDRNET),
        "idrnet-idec": Row("IDEC", "digits/idec_5-1", (*IDRNET, "method.features=stages")),
    },
}
TABLE = Table(
    command="make digits-table",
    docs=Path("docs") / "digits-results.md",
    title="Digits 5-1, method by method",
    caption=f"Old: the five digits of step 0; new: the five that came one by one. {FORGETTING}",
    sections=SECTIONS,
)

if __name__ == "__main__":
    main(TABLE)
