import type { Tensor } from '../../tensor.js'
import { quickGelu } from '../functional.js'
import { Module } from '../module.js'

/** max(x, 0). */
export class ReLU extends Module {
  forward(input: Tensor): Tensor {
    return input.relu()
  }
}

/** x Φ(x) (Hendrycks and Gimpel 2016); approximate: 'none' (the default) or 'tanh', which GPT-2 and others have. */
export class GELU extends Module {
  readonly approximate: 'none' | 'tanh'

  constructor({ approximate = 'none' }: { approximate?: 'none' | 'tanh' } = {}) {
    super()
    this.approximate = approximate
  }

  forward(input: Tensor): Tensor {
    return this.approximate === 'none' ? input.gelu() : input.gelu({ approximate: this.approximate })
  }
}

/** x * sigmoid(1.702 x): the GELU of the first CLIP models. */
export class QuickGELU extends Module {
  forward(input: Tensor): Tensor {
    return quickGelu(input)
  }
}

/** x * sigmoid(x). */
export class SiLU extends Module {
  forward(input: Tensor): Tensor {
    return input.silu()
  }
}

export class Sigmoid extends Module {
  forward(input: Tensor): Tensor {
    return input.sigmoid()
  }
}

export class Tanh extends Module {
  forward(input: Tensor): Tensor {
    return input.tanh()
  }
}

/** max(x, 0) + negativeSlope * min(x, 0). */
export class LeakyReLU extends Module {
  readonly negativeSlope: number

  constructor({ negativeSlope = 0.01 }: { negativeSlope?: number } = {}) {
    super()
    this.negativeSlope = negativeSlope
  }

  forward(input: Tensor): Tensor {
    return input.leakyRelu(this.negativeSlope)
  }
}

/** x where it is positive, else alpha (exp(x) - 1). */
export class ELU extends Module {
  readonly alpha: number

  constructor({ alpha = 1 }: { alpha?: number } = {}) {
    super()
    this.alpha = alpha
  }

  forward(input: Tensor): Tensor {
    return input.elu(this.alpha)
  }
}

/** log(1 + exp(x)). */
export class Softplus extends Module {
  forward(input: Tensor): Tensor {
    return input.softplus()
  }
}

/** exp(x), divided by its sum along a dimension. */
export class Softmax extends Module {
  constructor(readonly dim: number) {
    super()
  }

  forward(input: Tensor): Tensor {
    return input.softmax(this.dim)
  }
}

/** The logarithm of softmax. */
export class LogSoftmax extends Module {
  constructor(readonly dim: number) {
    super()
  }

  forward(input: Tensor): Tensor {
    return input.logSoftmax(this.dim)
  }
}
