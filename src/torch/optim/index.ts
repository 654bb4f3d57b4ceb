/*
 * Optimizers, schedules of their rates, gradient clipping, loss scaling and averages of parameters, by PyTorch's names.
 */
export { Adafactor, type AdafactorOptions, type AdafactorState } from './adafactor.js'
export { Adam, type AdamOptions, type AdamState, AdamW } from './adam.js'
export type { DictLike } from './check.js'
export { clipGradNorm_, clipGradValue_, getTotalNorm, type NormOptions } from './clip.js'
export { type DecayGroup, type DecayGroupOptions, decayGroups } from './decay-groups.js'
export {
  ExponentialMovingAverage,
  type ExponentialMovingAverageOptions,
  type ExponentialMovingAverageStateDict,
} from './ema.js'
export { stepIfFinite } from './finite-step.js'
export { GradScaler, type GradScalerOptions, type GradScalerStateDict } from './grad-scaler.js'
export {
  type CommonOptions,
  type Implementation,
  Optimizer,
  type OptimizerStateDict,
  type ParameterGroup,
  type ParameterGroupInput,
  type ParameterState,
  type Parameters,
} from './optimizer.js'
export {
  Constant,
  ConstantWithWarmup,
  CosineWithWarmup,
  LambdaLR,
  LinearWithWarmup,
  LRScheduler,
  MultiStepLR,
  type SchedulerStateDict,
  StepLR,
} from './schedulers.js'
export {
  type CosineSettings,
  constantWithWarmup,
  cosineWithWarmup,
  type LinearSettings,
  linearWithWarmup,
  type MultiStepSettings,
  multiStepDecay,
  type RestartSettings,
  type Schedule,
  type StepSettings,
  stepDecay,
  type WarmupSettings,
} from './schedules.js'
export { SGD, type SGDOptions, type SGDState } from './sgd.js'
