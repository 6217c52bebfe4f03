"""Load, run, differentiate, finetune, explain, save and serve ONNX models.

```
import onnxgrad as og

model = og.load("model.onnx")
y = model(x)
```

Names are imported when they are first used, so that `import onnxgrad` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import autograd, backend, cuda, errors, explain, nn, optim, utils
    from .importers.onnx.model import load as load
    from .importers.onnx.save import save as save
    from .importers.onnx.session import InferenceSession as InferenceSession
    from .runtime.creation import (
        arange as arange,
    )
    from .runtime.creation import (
        as_tensor as as_tensor,
    )
    from .runtime.creation import (
        cat as cat,
    )
    from .runtime.creation import (
        empty as empty,
    )
    from .runtime.creation import (
        eye as eye,
    )
    from .runtime.creation import (
        from_numpy as from_numpy,
    )
    from .runtime.creation import (
        full as full,
    )
    from .runtime.creation import (
        full_like as full_like,
    )
    from .runtime.creation import (
        linspace as linspace,
    )
    from .runtime.creation import (
        ones as ones,
    )
    from .runtime.creation import (
        ones_like as ones_like,
    )
    from .runtime.creation import (
        rand as rand,
    )
    from .runtime.creation import (
        rand_like as rand_like,
    )
    from .runtime.creation import (
        randint as randint,
    )
    from .runtime.creation import (
        randn as randn,
    )
    from .runtime.creation import (
        randn_like as randn_like,
    )
    from .runtime.creation import (
        randperm as randperm,
    )
    from .runtime.creation import (
        stack as stack,
    )
    from .runtime.creation import (
        tensor as tensor,
    )
    from .runtime.creation import (
        where as where,
    )
    from .runtime.creation import (
        zeros as zeros,
    )
    from .runtime.creation import (
        zeros_like as zeros_like,
    )
    from .runtime.device import device as device
    from .runtime.dtypes import (
        bfloat16 as bfloat16,
    )
    from .runtime.dtypes import (
        bool as bool,
    )
    from .runtime.dtypes import (
        double as double,
    )
    from .runtime.dtypes import (
        float as float,
    )
    from .runtime.dtypes import (
        float16 as float16,
    )
    from .runtime.dtypes import (
        float32 as float32,
    )
    from .runtime.dtypes import (
        float64 as float64,
    )
    from .runtime.dtypes import (
        half as half,
    )
    from .runtime.dtypes import (
        int as int,
    )
    from .runtime.dtypes import (
        int8 as int8,
    )
    from .runtime.dtypes import (
        int16 as int16,
    )
    from .runtime.dtypes import (
        int32 as int32,
    )
    from .runtime.dtypes import (
        int64 as int64,
    )
    from .runtime.dtypes import (
        long as long,
    )
    from .runtime.dtypes import (
        short as short,
    )
    from .runtime.dtypes import (
        uint8 as uint8,
    )
    from .runtime.dtypes import (
        uint16 as uint16,
    )
    from .runtime.dtypes import (
        uint32 as uint32,
    )
    from .runtime.dtypes import (
        uint64 as uint64,
    )
    from .runtime.functions import (
        abs as abs,
    )
    from .runtime.functions import (
        acos as acos,
    )
    from .runtime.functions import (
        acosh as acosh,
    )
    from .runtime.functions import (
        add as add,
    )
    from .runtime.functions import (
        all as all,
    )
    from .runtime.functions import (
        allclose as allclose,
    )
    from .runtime.functions import (
        amax as amax,
    )
    from .runtime.functions import (
        amin as amin,
    )
    from .runtime.functions import (
        any as any,
    )
    from .runtime.functions import (
        argmax as argmax,
    )
    from .runtime.functions import (
        argmin as argmin,
    )
    from .runtime.functions import (
        argsort as argsort,
    )
    from .runtime.functions import (
        asin as asin,
    )
    from .runtime.functions import (
        asinh as asinh,
    )
    from .runtime.functions import (
        atan as atan,
    )
    from .runtime.functions import (
        atanh as atanh,
    )
    from .runtime.functions import (
        bmm as bmm,
    )
    from .runtime.functions import (
        ceil as ceil,
    )
    from .runtime.functions import (
        chunk as chunk,
    )
    from .runtime.functions import (
        clamp as clamp,
    )
    from .runtime.functions import (
        clip as clip,
    )
    from .runtime.functions import (
        clone as clone,
    )
    from .runtime.functions import (
        cos as cos,
    )
    from .runtime.functions import (
        cosh as cosh,
    )
    from .runtime.functions import (
        cumsum as cumsum,
    )
    from .runtime.functions import (
        detach as detach,
    )
    from .runtime.functions import (
        div as div,
    )
    from .runtime.functions import (
        dot as dot,
    )
    from .runtime.functions import (
        einsum as einsum,
    )
    from .runtime.functions import (
        eq as eq,
    )
    from .runtime.functions import (
        equal as equal,
    )
    from .runtime.functions import (
        erf as erf,
    )
    from .runtime.functions import (
        exp as exp,
    )
    from .runtime.functions import (
        expand as expand,
    )
    from .runtime.functions import (
        flatten as flatten,
    )
    from .runtime.functions import (
        flip as flip,
    )
    from .runtime.functions import (
        floor as floor,
    )
    from .runtime.functions import (
        floor_divide as floor_divide,
    )
    from .runtime.functions import (
        fmod as fmod,
    )
    from .runtime.functions import (
        gather as gather,
    )
    from .runtime.functions import (
        ge as ge,
    )
    from .runtime.functions import (
        get_default_dtype as get_default_dtype,
    )
    from .runtime.functions import (
        gt as gt,
    )
    from .runtime.functions import (
        index_select as index_select,
    )
    from .runtime.functions import (
        is_tensor as is_tensor,
    )
    from .runtime.functions import (
        isclose as isclose,
    )
    from .runtime.functions import (
        isfinite as isfinite,
    )
    from .runtime.functions import (
        isinf as isinf,
    )
    from .runtime.functions import (
        isnan as isnan,
    )
    from .runtime.functions import (
        le as le,
    )
    from .runtime.functions import (
        log as log,
    )
    from .runtime.functions import (
        log2 as log2,
    )
    from .runtime.functions import (
        log10 as log10,
    )
    from .runtime.functions import (
        log_softmax as log_softmax,
    )
    from .runtime.functions import (
        logical_and as logical_and,
    )
    from .runtime.functions import (
        logical_not as logical_not,
    )
    from .runtime.functions import (
        logical_or as logical_or,
    )
    from .runtime.functions import (
        logsumexp as logsumexp,
    )
    from .runtime.functions import (
        lt as lt,
    )
    from .runtime.functions import (
        masked_fill as masked_fill,
    )
    from .runtime.functions import (
        masked_select as masked_select,
    )
    from .runtime.functions import (
        matmul as matmul,
    )
    from .runtime.functions import (
        max as max,
    )
    from .runtime.functions import (
        maximum as maximum,
    )
    from .runtime.functions import (
        mean as mean,
    )
    from .runtime.functions import (
        min as min,
    )
    from .runtime.functions import (
        minimum as minimum,
    )
    from .runtime.functions import (
        mm as mm,
    )
    from .runtime.functions import (
        mul as mul,
    )
    from .runtime.functions import (
        narrow as narrow,
    )
    from .runtime.functions import (
        ne as ne,
    )
    from .runtime.functions import (
        neg as neg,
    )
    from .runtime.functions import (
        nonzero as nonzero,
    )
    from .runtime.functions import (
        norm as norm,
    )
    from .runtime.functions import (
        permute as permute,
    )
    from .runtime.functions import (
        pow as pow,
    )
    from .runtime.functions import (
        prod as prod,
    )
    from .runtime.functions import (
        reciprocal as reciprocal,
    )
    from .runtime.functions import (
        relu as relu,
    )
    from .runtime.functions import (
        remainder as remainder,
    )
    from .runtime.functions import (
        repeat as repeat,
    )
    from .runtime.functions import (
        reshape as reshape,
    )
    from .runtime.functions import (
        round as round,
    )
    from .runtime.functions import (
        rsqrt as rsqrt,
    )
    from .runtime.functions import (
        select as select,
    )
    from .runtime.functions import (
        set_default_dtype as set_default_dtype,
    )
    from .runtime.functions import (
        sigmoid as sigmoid,
    )
    from .runtime.functions import (
        sign as sign,
    )
    from .runtime.functions import (
        sin as sin,
    )
    from .runtime.functions import (
        sinh as sinh,
    )
    from .runtime.functions import (
        softmax as softmax,
    )
    from .runtime.functions import (
        sort as sort,
    )
    from .runtime.functions import (
        split as split,
    )
    from .runtime.functions import (
        sqrt as sqrt,
    )
    from .runtime.functions import (
        square as square,
    )
    from .runtime.functions import (
        squeeze as squeeze,
    )
    from .runtime.functions import (
        std as std,
    )
    from .runtime.functions import (
        sub as sub,
    )
    from .runtime.functions import (
        sum as sum,
    )
    from .runtime.functions import (
        swapaxes as swapaxes,
    )
    from .runtime.functions import (
        t as t,
    )
    from .runtime.functions import (
        tan as tan,
    )
    from .runtime.functions import (
        tanh as tanh,
    )
    from .runtime.functions import (
        topk as topk,
    )
    from .runtime.functions import (
        transpose as transpose,
    )
    from .runtime.functions import (
        tril as tril,
    )
    from .runtime.functions import (
        triu as triu,
    )
    from .runtime.functions import (
        true_divide as true_divide,
    )
    from .runtime.functions import (
        unbind as unbind,
    )
    from .runtime.functions import (
        unflatten as unflatten,
    )
    from .runtime.functions import (
        unsqueeze as unsqueeze,
    )
    from .runtime.functions import (
        var as var,
    )
    from .runtime.grad_mode import (
        enable_grad as enable_grad,
    )
    from .runtime.grad_mode import (
        inference_mode as inference_mode,
    )
    from .runtime.grad_mode import (
        is_grad_enabled as is_grad_enabled,
    )
    from .runtime.grad_mode import (
        no_grad as no_grad,
    )
    from .runtime.grad_mode import (
        set_grad_enabled as set_grad_enabled,
    )
    from .runtime.model import Model as Model
    from .runtime.random import (
        Generator as Generator,
    )
    from .runtime.random import (
        initial_seed as initial_seed,
    )
    from .runtime.random import (
        manual_seed as manual_seed,
    )
    from .runtime.tensor import Tensor as Tensor
    from .tools.finetune import evaluate as evaluate
    from .tools.finetune import finetune as finetune

_NAMES = {
    "importers.onnx.model": "load",
    "importers.onnx.save": "save",
    "importers.onnx.session": "InferenceSession",
    "runtime.creation": (
        "arange as_tensor cat empty eye from_numpy full full_like linspace ones ones_like rand rand_like "
        "randint randn randn_like randperm stack tensor where zeros zeros_like"
    ),
    "runtime.device": "device",
    "runtime.dtypes": (
        "bfloat16 bool double float float16 float32 float64 half int int16 int32 int64 int8 long short "
        "uint16 uint32 uint64 uint8"
    ),
    "runtime.functions": (
        "abs acos acosh add all allclose amax amin any argmax argmin argsort asin asinh atan atanh bmm "
        "ceil chunk clamp clip clone cos cosh cumsum detach div dot einsum eq equal erf exp expand "
        "flatten flip floor floor_divide fmod gather ge get_default_dtype gt index_select is_tensor "
        "isclose isfinite isinf isnan le log log10 log2 log_softmax logical_and logical_not logical_or "
        "logsumexp lt masked_fill masked_select matmul max maximum mean min minimum mm mul narrow ne neg "
        "nonzero norm permute pow prod reciprocal relu remainder repeat reshape round rsqrt select "
        "set_default_dtype sigmoid sign sin sinh softmax sort split sqrt square squeeze std sub sum "
        "swapaxes t tan tanh topk transpose tril triu true_divide unbind unflatten unsqueeze var"
    ),
    "runtime.grad_mode": "enable_grad inference_mode is_grad_enabled no_grad set_grad_enabled",
    "runtime.model": "Model",
    "runtime.random": "Generator initial_seed manual_seed",
    "runtime.tensor": "Tensor",
    "tools.finetune": "evaluate finetune",
}
_HOME = {name: home for home, names in _NAMES.items() for name in names.split()}
_MODULES = ("autograd", "backend", "cuda", "errors", "explain", "nn", "optim", "utils")

__all__ = [
    "Generator",
    "InferenceSession",
    "Model",
    "Tensor",
    "abs",
    "acos",
    "acosh",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_tensor",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "autograd",
    "backend",
    "bfloat16",
    "bmm",
    "bool",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clip",
    "clone",
    "cos",
    "cosh",
    "cuda",
    "cumsum",
    "detach",
    "device",
    "div",
    "dot",
    "double",
    "einsum",
    "empty",
    "enable_grad",
    "eq",
    "equal",
    "erf",
    "errors",
    "evaluate",
    "exp",
    "expand",
    "explain",
    "eye",
    "finetune",
    "flatten",
    "flip",
    "float",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "fmod",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "ge",
    "get_default_dtype",
    "gt",
    "half",
    "index_select",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_tensor",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "linspace",
    "load",
    "log",
    "log2",
    "log10",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "long",
    "lt",
    "manual_seed",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mm",
    "mul",
    "narrow",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "nonzero",
    "norm",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "reciprocal",
    "relu",
    "remainder",
    "repeat",
    "reshape",
    "round",
    "rsqrt",
    "save",
    "select",
    "set_default_dtype",
    "set_grad_enabled",
    "short",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "swapaxes",
    "t",
    "tan",
    "tanh",
    "tensor",
    "topk",
    "transpose",
    "tril",
    "triu",
    "true_divide",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "unbind",
    "unflatten",
    "unsqueeze",
    "utils",
    "var",
    "where",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module, metadata

    if name in _HOME:
        found = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
        return found
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name == "__version__":
        return metadata.version("onnxgrad")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
