"""What the methods with an inner loop share.

functional          a model as a function of its parameters: call, gradient, support loss, query predictions
task_batches        the mean loss of stacked tasks, one after the other or by vmap
support_statistics  how batch norm normalises support and queries
second_derivatives  batch norm, convolution and pooling with cheap second derivatives
instead             other functions in place of PyTorch's, for the time of a block
"""
