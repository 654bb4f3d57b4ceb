/*
 * `cleft`: what users import. The method (models, train(), evaluate()) joins `torch` here as it is built.
 */
export * as torch from './torch/index.js'
