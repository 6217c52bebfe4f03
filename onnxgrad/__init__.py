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
    from . import (
        autograd as autograd,
        backend as backend,
        cuda as cuda,
        errors as errors,
        explain as explain,
        nn as nn,
        optim as optim,
        utils as utils,
    )
    from .importers.onnx.model import load as load
    from .importers.onnx.save import save as save
    from .importers.onnx.session import InferenceSession as InferenceSession
    from .runtime.creation import (
        arange as arange,
        as_tensor as as_tensor,
        cat as cat,
        empty as empty,
        eye as eye,
        from_numpy as from_numpy,
        full as full,
        full_like as full_like,
        linspace as linspace,
        ones as ones,
        ones_like as ones_like,
        rand as rand,
        rand_like as rand_like,
        randint as randint,
        randn as randn,
        randn_like as randn_like,
        randperm as randperm,
        stack as stack,
        tensor as tensor,
        where as where,
        zeros as zeros,
        zeros_like as zeros_like,
    )
    from .runtime.device import device as device
    from .runtime.dtypes import (
        bfloat16 as bfloat16,
        bool as bool,
        double as double,
        float as float,
        float16 as float16,
        float32 as float32,
        float64 as float64,
        half as half,
        int as int,
        int8 as int8,
        int16 as int16,
        int32 as int32,
        int64 as int64,
        long as long,
        short as short,
        uint8 as uint8,
        uint16 as uint16,
        uint32 as uint32,
        uint64 as uint64,
    )
    from .runtime.functions import (
        abs as abs,
        acos as acos,
        acosh as acosh,
        add as add,
        all as all,
        allclose as allclose,
        amax as amax,
        amin as amin,
        any as any,
        argmax as argmax,
        argmin as argmin,
        argsort as argsort,
        asin as asin,
        asinh as asinh,
        atan as atan,
        atanh as atanh,
        bmm as bmm,
        ceil as ceil,
        chunk as chunk,
        clamp as clamp,
        clip as clip,
        clone as clone,
        cos as cos,
        cosh as cosh,
        cumsum as cumsum,
        detach as detach,
        div as div,
        dot as dot,
        einsum as einsum,
        eq as eq,
        equal as equal,
        erf as erf,
        exp as exp,
        expand as expand,
        flatten as flatten,
        flip as flip,
        floor as floor,
        floor_divide as floor_divide,
        fmod as fmod,
        gather as gather,
        ge as ge,
        get_default_dtype as get_default_dtype,
        gt as gt,
        index_select as index_select,
        is_tensor as is_tensor,
        isclose as isclose,
        isfinite as isfinite,
        isinf as isinf,
        isnan as isnan,
        le as le,
        log as log,
        log2 as log2,
        log10 as log10,
        log_softmax as log_softmax,
        logical_and as logical_and,
        logical_not as logical_not,
        logical_or as logical_or,
        logsumexp as logsumexp,
        lt as lt,
        masked_fill as masked_fill,
        masked_select as masked_select,
        matmul as matmul,
        max as max,
        maximum as maximum,
        mean as mean,
        min as min,
        minimum as minimum,
        mm as mm,
        mul as mul,
        narrow as narrow,
        ne as ne,
        neg as neg,
        nonzero as nonzero,
        norm as norm,
        permute as permute,
        pow as pow,
        prod as prod,
        reciprocal as reciprocal,
        relu as relu,
        remainder as remainder,
        repeat as repeat,
        reshape as reshape,
        round as round,
        rsqrt as rsqrt,
        select as select,
        set_default_dtype as set_default_dtype,
        sigmoid as sigmoid,
        sign as sign,
        sin as sin,
        sinh as sinh,
        softmax as softmax,
        sort as sort,
        split as split,
        sqrt as sqrt,
        square as square,
        squeeze as squeeze,
        std as std,
        sub as sub,
        sum as sum,
        swapaxes as swapaxes,
        t as t,
        tan as tan,
        tanh as tanh,
        topk as topk,
        transpose as transpose,
        tril as tril,
        triu as triu,
        true_divide as true_divide,
        unbind as unbind,
        unflatten as unflatten,
        unsqueeze as unsqueeze,
        var as var,
    )
    from .runtime.grad_mode import (
        enable_grad as enable_grad,
        inference_mode as inference_mode,
        is_grad_enabled as is_grad_enabled,
        no_grad as no_grad,
        set_grad_enabled as set_grad_enabled,
    )
    from .runtime.model import Model as Model
    from .runtime.random import (
        Generator as Generator,
        initial_seed as initial_seed,
        manual_seed as manual_seed,
    )
    from .runtime.tensor import Tensor as Tensor
    from .runtime.tracing import compile as compile
    from .tools.finetune import evaluate as evaluate, finetune as finetune

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
    "runtime.tracing": "compile",
    "tools.finetune": "evaluate finetune",
}
_HOME = {name: home for home, names in _NAMES.items() for name in names.split()}
_MODULES = ("autograd", "backend", "cuda", "errors", "explain", "nn", "optim", "utils")

__all__ = [*_HOME, *_MODULES]


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
