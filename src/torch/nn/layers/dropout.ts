import type { Tensor } from '../../tensor.js'
import { dropout, dropPath } from '../functional.js'
import { Module } from '../module.js'

function checkProbability(name: string, p: number): number {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`${name}: expected a probability from 0 to 1, but received ${p}`)
  return p
}

/** While training, sets elements to 0 with probability p and multiplies the others by 1 / (1 - p). */
export class Dropout extends Module {
  readonly p: number

  constructor(p = 0.5) {
    super()
    this.p = checkProbability('Dropout', p)
  }

  forward(input: Tensor): Tensor {
    return dropout(input, this.p, this.training)
  }
}

/** While training, sets whole samples of the first dimension to 0 with probability p: stochastic depth (Huang et al. 2016). */
export class DropPath extends Module {
  readonly p: number
  readonly scaleByKeep: boolean

  /** @param options.scaleByKeep multiply the samples that are kept by 1 / (1 - p); default: true */
  constructor(p = 0, { scaleByKeep = true }: { scaleByKeep?: boolean } = {}) {
    super()
    this.p = checkProbability('DropPath', p)
    this.scaleByKeep = scaleByKeep
  }

  forward(input: Tensor): Tensor {
    return dropPath(input, this.p, this.training, this)
  }
}
