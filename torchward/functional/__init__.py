"""Pure functions of tensors: the mathematics of reinforcement learning, with no parameters and no state.

Each module is one chapter; import the module, or the function from it.

- `returns`: discounted, n-step and lambda returns; V-trace; Retrace.
- `advantages`: generalised advantage estimation, group-relative, leave-one-out, standardising.
- `policy_losses`: REINFORCE, the clipped surrogate and its kin, the entropy bonus.
- `value_losses`: temporal-difference targets, squared, Huber and clipped errors, double Q, exploration probabilities,
  distributions of the return (C51, quantiles).
- `divergences`: exact entropy and KL; the sample estimators k1, k2, k3.
- `distillation`: how far a student lies from its teacher: forward and reverse KL, generalised Jensen-Shannon.
- `reduction`: masked means whose total is given from outside; token, sequence and constant normalisation.
- `bellman`: exact operators on a known Markov decision process.

Tensors that run over time are `[batch, time]`. Three facts decide what may flow backwards in time:

- `terminated`: there is no future after this step; bootstrapping stops, and so does the trace.
- `boundary`: the next row is not this step's future; the trace stops, bootstrapping does not.
- the last column never has a next row, so it is treated as a boundary.

Advantages, old log-probabilities and targets are weights: the losses detach them.
"""
