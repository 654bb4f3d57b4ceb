/*
 * `cleft`: what users import. The method (train(), evaluate()) joins here as it is built.
 */
export * as data from './data/index.js'
export * as models from './models/index.js'
export * as peft from './peft/index.js'
export * as torch from './torch/index.js'
