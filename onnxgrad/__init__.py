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
        accelerator as accelerator,
        amp as amp,
        autograd as autograd,
        backend as backend,
        backends as backends,
        cuda as cuda,
        errors as errors,
        explain as explain,
        func as func,
        fx as fx,
        linalg as linalg,
        nn as nn,
        onnx as onnx,
        optim as optim,
        profiler as profiler,
        random as random,
        utils as utils,
        vision as vision,
    )
    from .importers.files import load as load, save as save
    from .importers.onnx.session import InferenceSession as InferenceSession
    from .runtime.amp.autocast import (
        autocast as autocast,
        clear_autocast_cache as clear_autocast_cache,
        get_autocast_dtype as get_autocast_dtype,
        is_autocast_cache_enabled as is_autocast_cache_enabled,
        is_autocast_enabled as is_autocast_enabled,
        set_autocast_cache_enabled as set_autocast_cache_enabled,
        set_autocast_dtype as set_autocast_dtype,
        set_autocast_enabled as set_autocast_enabled,
    )
    from .runtime.autograd.grad_mode import (
        enable_grad as enable_grad,
        inference_mode as inference_mode,
        is_grad_enabled as is_grad_enabled,
        no_grad as no_grad,
        set_grad_enabled as set_grad_enabled,
    )
    from .runtime.model.model import Model as Model
    from .runtime.nn.functional import (
        adaptive_avg_pool1d as adaptive_avg_pool1d,
        alpha_dropout as alpha_dropout,
        avg_pool1d as avg_pool1d,
        celu as celu,
        channel_shuffle as channel_shuffle,
        conv1d as conv1d,
        conv2d as conv2d,
        conv3d as conv3d,
        conv_transpose1d as conv_transpose1d,
        conv_transpose2d as conv_transpose2d,
        conv_transpose3d as conv_transpose3d,
        cosine_embedding_loss as cosine_embedding_loss,
        cosine_similarity as cosine_similarity,
        dropout as dropout,
        group_norm as group_norm,
        hardshrink as hardshrink,
        layer_norm as layer_norm,
        max_pool1d as max_pool1d,
        max_pool2d as max_pool2d,
        max_pool3d as max_pool3d,
        pairwise_distance as pairwise_distance,
        pdist as pdist,
        pixel_shuffle as pixel_shuffle,
        pixel_unshuffle as pixel_unshuffle,
        prelu as prelu,
        rms_norm as rms_norm,
        rrelu as rrelu,
        selu as selu,
        threshold as threshold,
        triplet_margin_loss as triplet_margin_loss,
    )
    from .runtime.tensor.constants import e as e, inf as inf, nan as nan, newaxis as newaxis, pi as pi
    from .runtime.tensor.creation import (
        BoolTensor as BoolTensor,
        ByteTensor as ByteTensor,
        CharTensor as CharTensor,
        DoubleTensor as DoubleTensor,
        FloatTensor as FloatTensor,
        HalfTensor as HalfTensor,
        IntTensor as IntTensor,
        LongTensor as LongTensor,
        ShortTensor as ShortTensor,
        arange as arange,
        as_tensor as as_tensor,
        asarray as asarray,
        empty as empty,
        empty_like as empty_like,
        eye as eye,
        from_numpy as from_numpy,
        full as full,
        full_like as full_like,
        linspace as linspace,
        logspace as logspace,
        ones as ones,
        ones_like as ones_like,
        scalar_tensor as scalar_tensor,
        tensor as tensor,
        tril_indices as tril_indices,
        triu_indices as triu_indices,
        vander as vander,
        zeros as zeros,
        zeros_like as zeros_like,
    )
    from .runtime.tensor.device import (
        device as device,
        get_default_device as get_default_device,
        set_default_device as set_default_device,
    )
    from .runtime.tensor.dlpack import from_dlpack as from_dlpack
    from .runtime.tensor.dtypes import (
        bfloat16 as bfloat16,
        bool as bool,
        double as double,
        dtype as dtype,
        finfo as finfo,
        float as float,
        float16 as float16,
        float32 as float32,
        float64 as float64,
        half as half,
        iinfo as iinfo,
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
    from .runtime.tensor.functions import (
        abs as abs,
        absolute as absolute,
        acos as acos,
        acosh as acosh,
        add as add,
        addbmm as addbmm,
        addcdiv as addcdiv,
        addcmul as addcmul,
        addmm as addmm,
        addmv as addmv,
        addr as addr,
        adjoint as adjoint,
        all as all,
        allclose as allclose,
        amax as amax,
        amin as amin,
        aminmax as aminmax,
        any as any,
        arccos as arccos,
        arccosh as arccosh,
        arcsin as arcsin,
        arcsinh as arcsinh,
        arctan as arctan,
        arctan2 as arctan2,
        arctanh as arctanh,
        argmax as argmax,
        argmin as argmin,
        argsort as argsort,
        argwhere as argwhere,
        asin as asin,
        asinh as asinh,
        atan as atan,
        atan2 as atan2,
        atanh as atanh,
        baddbmm as baddbmm,
        bincount as bincount,
        bitwise_and as bitwise_and,
        bitwise_left_shift as bitwise_left_shift,
        bitwise_not as bitwise_not,
        bitwise_or as bitwise_or,
        bitwise_right_shift as bitwise_right_shift,
        bitwise_xor as bitwise_xor,
        bmm as bmm,
        broadcast_to as broadcast_to,
        bucketize as bucketize,
        can_cast as can_cast,
        cdist as cdist,
        ceil as ceil,
        chain_matmul as chain_matmul,
        cholesky as cholesky,
        chunk as chunk,
        clamp as clamp,
        clamp_max as clamp_max,
        clamp_min as clamp_min,
        clip as clip,
        clone as clone,
        conj as conj,
        copysign as copysign,
        corrcoef as corrcoef,
        cos as cos,
        cosh as cosh,
        count_nonzero as count_nonzero,
        cov as cov,
        cross as cross,
        cummax as cummax,
        cummin as cummin,
        cumprod as cumprod,
        cumsum as cumsum,
        deg2rad as deg2rad,
        det as det,
        detach as detach,
        diag as diag,
        diag_embed as diag_embed,
        diagflat as diagflat,
        diagonal as diagonal,
        diagonal_scatter as diagonal_scatter,
        diff as diff,
        digamma as digamma,
        dist as dist,
        div as div,
        divide as divide,
        dot as dot,
        dsplit as dsplit,
        einsum as einsum,
        eq as eq,
        equal as equal,
        erf as erf,
        erfc as erfc,
        erfinv as erfinv,
        exp as exp,
        exp2 as exp2,
        expand as expand,
        expm1 as expm1,
        fix as fix,
        flatten as flatten,
        flip as flip,
        fliplr as fliplr,
        flipud as flipud,
        float_power as float_power,
        floor as floor,
        floor_divide as floor_divide,
        fmax as fmax,
        fmin as fmin,
        fmod as fmod,
        frac as frac,
        gather as gather,
        ge as ge,
        ger as ger,
        get_default_dtype as get_default_dtype,
        gradient as gradient,
        greater as greater,
        greater_equal as greater_equal,
        gt as gt,
        heaviside as heaviside,
        histc as histc,
        histogram as histogram,
        hsplit as hsplit,
        hypot as hypot,
        index_add as index_add,
        index_copy as index_copy,
        index_fill as index_fill,
        index_put as index_put,
        index_reduce as index_reduce,
        index_select as index_select,
        inner as inner,
        inverse as inverse,
        is_complex as is_complex,
        is_floating_point as is_floating_point,
        is_nonzero as is_nonzero,
        is_same_size as is_same_size,
        is_signed as is_signed,
        is_tensor as is_tensor,
        isclose as isclose,
        isfinite as isfinite,
        isin as isin,
        isinf as isinf,
        isnan as isnan,
        isneginf as isneginf,
        isposinf as isposinf,
        isreal as isreal,
        kron as kron,
        kthvalue as kthvalue,
        ldexp as ldexp,
        le as le,
        lerp as lerp,
        less as less,
        less_equal as less_equal,
        lgamma as lgamma,
        log as log,
        log1p as log1p,
        log2 as log2,
        log10 as log10,
        log_softmax as log_softmax,
        logaddexp as logaddexp,
        logaddexp2 as logaddexp2,
        logcumsumexp as logcumsumexp,
        logdet as logdet,
        logical_and as logical_and,
        logical_not as logical_not,
        logical_or as logical_or,
        logical_xor as logical_xor,
        logit as logit,
        logsumexp as logsumexp,
        lt as lt,
        masked_fill as masked_fill,
        masked_scatter as masked_scatter,
        masked_select as masked_select,
        matmul as matmul,
        matrix_exp as matrix_exp,
        matrix_power as matrix_power,
        max as max,
        maximum as maximum,
        mean as mean,
        median as median,
        min as min,
        minimum as minimum,
        mm as mm,
        mode as mode,
        moveaxis as moveaxis,
        movedim as movedim,
        msort as msort,
        mul as mul,
        multiply as multiply,
        mv as mv,
        nan_to_num as nan_to_num,
        nanmean as nanmean,
        nanmedian as nanmedian,
        nanquantile as nanquantile,
        nansum as nansum,
        narrow as narrow,
        ne as ne,
        neg as neg,
        negative as negative,
        nonzero as nonzero,
        norm as norm,
        not_equal as not_equal,
        numel as numel,
        outer as outer,
        permute as permute,
        pinverse as pinverse,
        polygamma as polygamma,
        positive as positive,
        pow as pow,
        prod as prod,
        promote_types as promote_types,
        put as put,
        qr as qr,
        quantile as quantile,
        rad2deg as rad2deg,
        ravel as ravel,
        real as real,
        reciprocal as reciprocal,
        relu as relu,
        remainder as remainder,
        renorm as renorm,
        repeat as repeat,
        repeat_interleave as repeat_interleave,
        reshape as reshape,
        result_type as result_type,
        roll as roll,
        rot90 as rot90,
        round as round,
        rsqrt as rsqrt,
        rsub as rsub,
        scatter as scatter,
        scatter_add as scatter_add,
        scatter_reduce as scatter_reduce,
        searchsorted as searchsorted,
        select as select,
        select_scatter as select_scatter,
        set_default_dtype as set_default_dtype,
        sgn as sgn,
        sigmoid as sigmoid,
        sign as sign,
        signbit as signbit,
        sin as sin,
        sinc as sinc,
        sinh as sinh,
        slice_scatter as slice_scatter,
        slogdet as slogdet,
        softmax as softmax,
        sort as sort,
        split as split,
        split_with_sizes as split_with_sizes,
        sqrt as sqrt,
        square as square,
        squeeze as squeeze,
        std as std,
        std_mean as std_mean,
        sub as sub,
        subtract as subtract,
        sum as sum,
        svd as svd,
        swapaxes as swapaxes,
        swapdims as swapdims,
        t as t,
        take as take,
        take_along_dim as take_along_dim,
        tan as tan,
        tanh as tanh,
        tensor_split as tensor_split,
        tensordot as tensordot,
        tile as tile,
        topk as topk,
        trace as trace,
        transpose as transpose,
        tril as tril,
        triu as triu,
        true_divide as true_divide,
        trunc as trunc,
        typename as typename,
        unbind as unbind,
        unflatten as unflatten,
        unique as unique,
        unique_consecutive as unique_consecutive,
        unravel_index as unravel_index,
        unsqueeze as unsqueeze,
        var as var,
        var_mean as var_mean,
        vdot as vdot,
        vsplit as vsplit,
        where as where,
        xlogy as xlogy,
    )
    from .runtime.tensor.joining import (
        atleast_1d as atleast_1d,
        atleast_2d as atleast_2d,
        atleast_3d as atleast_3d,
        block_diag as block_diag,
        broadcast_shapes as broadcast_shapes,
        broadcast_tensors as broadcast_tensors,
        cartesian_prod as cartesian_prod,
        cat as cat,
        column_stack as column_stack,
        combinations as combinations,
        concat as concat,
        concatenate as concatenate,
        cumulative_trapezoid as cumulative_trapezoid,
        dstack as dstack,
        hstack as hstack,
        meshgrid as meshgrid,
        row_stack as row_stack,
        stack as stack,
        trapezoid as trapezoid,
        trapz as trapz,
        vstack as vstack,
    )
    from .runtime.tensor.printing import set_printoptions as set_printoptions
    from .runtime.tensor.random import (
        Generator as Generator,
        default_generator as default_generator,
        get_rng_state as get_rng_state,
        initial_seed as initial_seed,
        manual_seed as manual_seed,
        seed as seed,
        set_rng_state as set_rng_state,
    )
    from .runtime.tensor.reproducible import (
        are_deterministic_algorithms_enabled as are_deterministic_algorithms_enabled,
        get_float32_matmul_precision as get_float32_matmul_precision,
        is_deterministic_algorithms_warn_only_enabled as is_deterministic_algorithms_warn_only_enabled,
        set_float32_matmul_precision as set_float32_matmul_precision,
        use_deterministic_algorithms as use_deterministic_algorithms,
    )
    from .runtime.tensor.sampling import (
        bernoulli as bernoulli,
        multinomial as multinomial,
        normal as normal,
        poisson as poisson,
        rand as rand,
        rand_like as rand_like,
        randint as randint,
        randint_like as randint_like,
        randn as randn,
        randn_like as randn_like,
        randperm as randperm,
    )
    from .runtime.tensor.size import Size as Size
    from .runtime.tensor.tensor import Tensor as Tensor
    from .runtime.tracing.compile import compile as compile
    from .tools.draw import draw as draw, make_dot as make_dot
    from .tools.finetune import evaluate as evaluate, finetune as finetune

_NAMES = {
    "importers.files": "load save",
    "importers.onnx.session": "InferenceSession",
    "runtime.tensor.constants": "e inf nan newaxis pi",
    "runtime.tensor.creation": (
        "BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor LongTensor "
        "ShortTensor arange as_tensor asarray empty empty_like eye from_numpy full full_like linspace "
        "logspace ones ones_like scalar_tensor tensor tril_indices triu_indices vander zeros zeros_like"
    ),
    "runtime.tensor.device": "device get_default_device set_default_device",
    "runtime.tensor.dlpack": "from_dlpack",
    "runtime.tensor.dtypes": (
        "bfloat16 bool double dtype finfo float float16 float32 float64 half iinfo int int16 int32 int64 int8 "
        "long short uint16 uint32 uint64 uint8"
    ),
    "runtime.tensor.functions": (
        "abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all allclose amax amin "
        "aminmax any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere asin "
        "asinh atan atan2 atanh baddbmm bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or "
        "bitwise_right_shift bitwise_xor bmm broadcast_to bucketize can_cast cdist ceil chain_matmul cholesky "
        "chunk clamp clamp_max clamp_min clip clone conj copysign corrcoef cos cosh count_nonzero cov cross "
        "cummax cummin cumprod cumsum deg2rad det detach diag diag_embed diagflat diagonal diagonal_scatter "
        "diff digamma dist div divide dot dsplit einsum eq equal erf erfc erfinv exp exp2 expand expm1 fix "
        "flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac gather ge ger "
        "get_default_dtype gradient greater greater_equal gt heaviside histc histogram hsplit hypot index_add "
        "index_copy index_fill index_put index_reduce index_select inner inverse is_complex is_floating_point "
        "is_nonzero is_same_size is_signed is_tensor isclose isfinite isin isinf isnan isneginf isposinf "
        "isreal kron kthvalue ldexp le lerp less less_equal lgamma log log10 log1p log2 log_softmax logaddexp "
        "logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logsumexp lt "
        "masked_fill masked_scatter masked_select matmul matrix_exp matrix_power max maximum mean median min "
        "minimum mm mode moveaxis movedim msort mul multiply mv nan_to_num nanmean nanmedian nanquantile "
        "nansum narrow ne neg negative nonzero norm not_equal numel outer permute pinverse polygamma positive "
        "pow prod promote_types put qr quantile rad2deg ravel real reciprocal relu remainder renorm repeat "
        "repeat_interleave reshape result_type roll rot90 round rsqrt rsub scatter scatter_add scatter_reduce "
        "searchsorted select select_scatter set_default_dtype sgn sigmoid sign signbit sin sinc sinh "
        "slice_scatter slogdet softmax sort split split_with_sizes sqrt square squeeze std std_mean sub "
        "subtract sum svd swapaxes swapdims t take take_along_dim tan tanh tensor_split tensordot tile topk "
        "trace transpose tril triu true_divide trunc typename unbind unflatten unique unique_consecutive "
        "unravel_index unsqueeze var var_mean vdot vsplit where xlogy"
    ),
    "runtime.amp.autocast": (
        "autocast clear_autocast_cache get_autocast_dtype is_autocast_cache_enabled is_autocast_enabled "
        "set_autocast_cache_enabled set_autocast_dtype set_autocast_enabled"
    ),
    "runtime.autograd.grad_mode": "enable_grad inference_mode is_grad_enabled no_grad set_grad_enabled",
    "runtime.tensor.joining": (
        "atleast_1d atleast_2d atleast_3d block_diag broadcast_shapes broadcast_tensors cartesian_prod cat "
        "column_stack combinations concat concatenate cumulative_trapezoid dstack hstack meshgrid row_stack "
        "stack trapezoid trapz vstack"
    ),
    "runtime.model.model": "Model",
    "runtime.nn.functional": (
        "adaptive_avg_pool1d alpha_dropout avg_pool1d celu channel_shuffle conv1d conv2d conv3d "
        "conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss cosine_similarity dropout "
        "group_norm hardshrink layer_norm max_pool1d max_pool2d max_pool3d pairwise_distance pdist "
        "pixel_shuffle pixel_unshuffle prelu rms_norm rrelu selu threshold triplet_margin_loss"
    ),
    "runtime.tensor.printing": "set_printoptions",
    "runtime.tensor.random": "Generator default_generator get_rng_state initial_seed manual_seed seed set_rng_state",
    "runtime.tensor.reproducible": (
        "are_deterministic_algorithms_enabled get_float32_matmul_precision "
        "is_deterministic_algorithms_warn_only_enabled set_float32_matmul_precision "
        "use_deterministic_algorithms"
    ),
    "runtime.tensor.sampling": (
        "bernoulli multinomial normal poisson rand rand_like randint randint_like randn randn_like randperm"
    ),
    "runtime.tensor.size": "Size",
    "runtime.tensor.tensor": "Tensor",
    "runtime.tracing.compile": "compile",
    "tools.draw": "draw make_dot",
    "tools.finetune": "evaluate finetune",
}
_HOME = {name: home for home, names in _NAMES.items() for name in names.split()}
_MODULES = (
    "accelerator",
    "amp",
    "autograd",
    "backend",
    "backends",
    "cuda",
    "errors",
    "explain",
    "func",
    "fx",
    "linalg",
    "nn",
    "onnx",
    "optim",
    "profiler",
    "random",
    "utils",
    "vision",
)

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
