"""Every error that onnxgrad raises, in one tree.

```
OnnxGradError
├── LoadError                     a file is not what it should be
│   ├── MissingFileError          there is no such file  (also FileNotFoundError)
│   ├── NotOnnxError              not a protobuf, truncated, or no graph in it
│   ├── ExternalDataError         weights beside the file: missing, absolute, escaping or short
│   ├── InvalidGraphError         cycle, dangling or duplicate names, a broken subgraph
│   └── UnsupportedError          (also NotImplementedError)
│       ├── UnsupportedOperatorError   no binding for (domain, operator, version)
│       └── UnsupportedAttributeError  a binding met an attribute it does not know
├── OpError                       an op was used wrongly  (also ValueError and, as in PyTorch, RuntimeError)
│   ├── ShapeError
│   │   └── AxisError             there is no such axis  (also IndexError)
│   ├── DTypeError
│   └── KernelError               no kernel computes these types on this device
├── SymbolicError                 a value is needed that only run time knows
├── InputError                    a call's inputs do not fit the model  (also ValueError)
│   └── DeviceError               a device is not there, or arrays lie on several  (also RuntimeError)
│       └── OutOfMemoryError      a device's memory is full  (also MemoryError)
├── AutogradError                 (also RuntimeError)
├── TrainingError                 (also RuntimeError)
│   └── NonFiniteLossError        the loss became NaN or infinite
├── ModuleError                   a module, or a hook of one, does what modules do not support  (also RuntimeError)
├── ProfilerError                 a profile is started or stepped where it cannot be  (also RuntimeError)
├── StateDictError                a state dict does not fit the module  (also RuntimeError)
├── SaveError                     a model or state could not be written
├── ServeError                    a request the server cannot answer
└── MissingExtraError             an optional package is not installed  (also ImportError)
```
"""

from __future__ import annotations


class OnnxGradError(Exception):
    """Anything that onnxgrad reports on purpose."""


class LoadError(OnnxGradError):
    """A file could not become a graph, or state."""


class MissingFileError(LoadError, FileNotFoundError):
    """There is no such file."""


class NotOnnxError(LoadError):
    """The file is not a protobuf, is truncated, or holds no graph."""


class ExternalDataError(LoadError):
    """Weights kept beside the file are missing, out of bounds, or outside the model's folder."""


class InvalidGraphError(LoadError):
    """The graph contradicts itself: a cycle, a dangling or duplicate name."""


class UnsupportedError(LoadError, NotImplementedError):
    """The file asks for something that onnxgrad does not have."""


class UnsupportedOperatorError(UnsupportedError):
    """No binding exists for this (domain, operator, version)."""


class UnsupportedAttributeError(UnsupportedError):
    """A node carries an attribute, or a value of one, that its binding does not know."""


class OpError(OnnxGradError, ValueError, RuntimeError):
    """An op was called with arguments that it does not take."""


class ShapeError(OpError):
    """Shapes do not fit together."""


class AxisError(ShapeError, IndexError):
    """A tensor has no such axis, or an axis no such place."""


class AssumptionError(ShapeError):
    """These sizes are not related as a compiled program assumes; the array kernels run them, or say what is wrong."""


class DTypeError(OpError):
    """An element type is not one that the op takes."""


class KernelError(OpError):
    """No kernel computes these types on this device."""


class SymbolicError(OnnxGradError):
    """A concrete value was asked of something that is known only at run time."""


class InputError(OnnxGradError, ValueError):
    """The inputs of a call do not fit what the model declares."""


class DeviceError(InputError, RuntimeError):
    """A device is not there, cannot be used, or the arrays of one call lie on several."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has no memory left for what was asked of it."""


class AutogradError(OnnxGradError, RuntimeError):
    """A gradient was asked for that cannot be computed."""


class TraceError(OnnxGradError, RuntimeError):
    """Python code cannot become a graph: what it does hangs on values that only running brings, or leaves no trace."""


class GraphError(OnnxGradError, RuntimeError):
    """A graph was changed so that it cannot run, or something in it is not there."""


class TrainingError(OnnxGradError, RuntimeError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite; `result` is what happened until then."""

    result: object = None


class ModuleError(OnnxGradError, RuntimeError):
    """A module, a hook of one, or a parametrization does what modules do not support."""


class ProfilerError(OnnxGradError, RuntimeError):
    """A profile is started inside another, or stepped while it is not under way."""


class StateDictError(OnnxGradError, RuntimeError):
    """A state dict does not fit the module that it is loaded into."""


class SaveError(OnnxGradError):
    """A model or state could not be written."""


class ServeError(OnnxGradError):
    """A request that the server cannot answer; `status` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class MissingExtraError(OnnxGradError, ImportError):
    """An optional package is needed and not installed."""
