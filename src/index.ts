/*
 * `cleft`: what users import.
 */
export * as data from './data/index.js'
export * as evaluation from './eval/index.js'
export { evaluate, load } from './eval/index.js'
export * as models from './models/index.js'
export * as peft from './peft/index.js'
export * as torch from './torch/index.js'
export * from './train/index.js'
