"""The rule for what the formulas of a step read: one thread computes all the numbers of a group of parameters."""

from __future__ import annotations

from ...expr import Expr, Var, where
from .expression import write
from .kernel import Argument, Kernel, Parameter
from .lowering import Site, lowers
from .optimize import FLOATS
from .prelude import c_type, computed


@lowers("step_numbers")
def _step_numbers(site: Site) -> bool:
    settings, _, counts = site.types
    if any(t.dtype.name not in FLOATS for t in (*counts, *site.results)):
        return False
    given = [site.read(0, order="plain"), site.read(1, order="plain")]
    given += [site.read(2, order="plain", item=k) for k in range(len(counts))]
    made = [site.write(i, order="plain") for i in range(len(site.results))]
    kernel = numbers_kernel(site, int(settings.shape[0]))
    arguments: list[Argument] = [*given, *made]
    writes = range(len(given), len(arguments))
    site.launch(kernel, (1, 1, 1), (1, 1, 1), arguments, writes=tuple(writes))
    return True


def numbers_kernel(site: Site, settings: int) -> Kernel:
    """Return the kernel: the settings, the flag and the counts, then the numbers and the counts behind the step.

    All is read before anything is written, so that counts may be written where they lie.
    """
    counts, dtype = [t.dtype for t in site.types[2]], site.results[0].dtype
    parameters = ["const double* settings", "const float* skip"]
    parameters += [f"const {c_type(d)}* count{i}" for i, d in enumerate(counts)]
    parameters += [f"{c_type(dtype)}* numbers", *(f"{c_type(d)}* counted{i}" for i, d in enumerate(counts))]
    values = {f"s{i}": f"s{i}" for i in range(settings)} | {f"c{i}": f"c{i}" for i in range(len(counts))}
    lines = [f"const double s{i} = settings[{i}];" for i in range(settings)]
    lines += [f"const double c{i} = (double)widen(count{i}[0]);" for i in range(len(counts))]
    lines += ["const bool skipped = skip[0] != 0.0f;"]
    types = dict.fromkeys(values, "double") | {"skipped": "bool"}
    values["skipped"] = "skipped"
    stores: list[str] = []
    formulas: list[tuple[Expr, str, str]] = [
        *((e, f"&numbers[{i}]", computed(dtype)) for i, e in enumerate(site.attrs["numbers"])),
        *(
            (where(Var("skipped"), Var(f"c{i}"), e), f"counted{i}", computed(d))
            for i, (e, d) in enumerate(zip(site.attrs["counted"], counts, strict=True))
        ),
    ]
    for i, (e, place, ctype) in enumerate(formulas):
        written = write(e, values, types, prefix=f"t{i}_")
        lines.append(written.statements)
        stores.append(f"narrow(({ctype}){written.result}, {place});")
    body = "\n".join(lines + stores)
    given = ", ".join(parameters)
    code = f'extern "C" __global__ void __launch_bounds__(1) step_numbers(\n    {given}\n) {{\n{body}\n}}\n'
    kinds: list[Parameter] = ["pointer"]
    return Kernel("step_numbers", code, tuple(kinds * len(parameters)), 1, 64)
