"""The engine: the three networks' steps on the CPU by hand, over kernels, without autograd and
without dense catalogues."""
