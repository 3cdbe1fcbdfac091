"""Every operator the reverse mode knows. To add one: a rule in a file of this folder, and a row here."""

from __future__ import annotations

from acclimate.export.backward import activations, convolution, elementwise, matrix, normalisation, pooling, shape
from acclimate.export.backward.tape import Rule

RULES: dict[str, Rule] = {
    "Add": elementwise.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalisation.batch_norm,
    "Clip": elementwise.clip,
    "Concat": shape.concat,
    "Conv": convolution.conv,
    "Div": elementwise.div,
    "Erf": activations.erf,
    "Exp": activations.exp,
    "Expand": shape.expand,
    "Gelu": activations.gelu,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": activations.hard_swish,
    "Identity": elementwise.identity,
    "InstanceNormalization": normalisation.instance_norm,
    "LayerNormalization": normalisation.layer_norm,
    "Log": activations.log,
    "MatMul": matrix.matmul,
    "MaxPool": pooling.max_pool,
    "Mul": elementwise.mul,
    "Neg": elementwise.neg,
    "Pad": shape.pad,
    "Pow": elementwise.pow_,
    "Reciprocal": activations.reciprocal,
    "ReduceMean": pooling.reduce_mean,
    "ReduceSum": pooling.reduce_sum,
    "Relu": elementwise.relu,
    "Reshape": shape.reshape,
    "Sigmoid": elementwise.sigmoid,
    "Slice": shape.slice_,
    "Softmax": activations.softmax,
    "Sqrt": activations.sqrt,
    "Sub": elementwise.sub,
    "Tanh": elementwise.tanh,
    "Transpose": shape.transpose,
    "Where": elementwise.where,
}
