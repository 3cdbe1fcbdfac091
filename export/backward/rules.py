"""Every operator the reverse mode knows. To add one: a rule in a file of this folder, and a row here."""

from __future__ import annotations

from acclimate.export.backward import convolution, elementwise, matrix, pooling, shape
from acclimate.export.backward.tape import Rule

RULES: dict[str, Rule] = {
    "Add": elementwise.add,
    "AveragePool": pooling.average_pool,
    "Clip": elementwise.clip,
    "Concat": shape.concat,
    "Conv": convolution.conv,
    "Div": elementwise.div,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "MatMul": matrix.matmul,
    "MaxPool": pooling.max_pool,
    "Mul": elementwise.mul,
    "Neg": elementwise.neg,
    "Pad": shape.pad,
    "ReduceMean": pooling.reduce_mean,
    "Relu": elementwise.relu,
    "Reshape": shape.reshape,
    "Sigmoid": elementwise.sigmoid,
    "Slice": shape.slice_,
    "Sub": elementwise.sub,
    "Tanh": elementwise.tanh,
    "Transpose": shape.transpose,
}
