/*
 * `distributed`: several processes that train as one, by libtorch's c10d. Launched by torchrun, Slurm or launch().
 */
export * from './collectives.js'
export * from './data-parallel.js'
export { firstHost, type LaunchEnvironment, readLaunchEnvironment, startsProcesses } from './environment.js'
export { allGatherWithGradient } from './gather-gradient.js'
export { GradientMean } from './gradient-mean.js'
export {
  type Backend,
  destroyProcessGroup,
  GROUP_TIMEOUT,
  type GroupOptions,
  getRank,
  getWorldSize,
  type InitOptions,
  initProcessGroup,
  isBackendAvailable,
  isInitialized,
  newGroup,
  type ProcessGroup,
  worldGroup,
} from './group.js'
export * from './launch.js'
export { type JoinOptions, Processes } from './processes.js'
export { PrefixStore, STORE_TIMEOUT, Store, TCPStore, type TCPStoreOptions, type WaitOptions } from './store.js'
export { type LaunchWorkOptions, launchWork, StoppedError, type WorkContext, workForLauncher } from './work.js'
