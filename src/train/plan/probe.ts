import { withKernelsOfGpu } from '../../models/kernels.js'
import * as torch from '../../torch/index.js'
import { inPrecision } from '../precision.js'

/*
 * What a forward and a backward take of memory, measured on the CPU with a model of the right widths and few layers, few
 * images and few texts. All of it grows by a fixed amount with each layer, image and token, so that two sizes of each say the rest.
 */

/** Bytes. */
export interface Figures {
  /** Of parameters that train, and of all others with the buffers. */
  readonly trainable: number
  readonly frozen: number
  /** What the first step leaves for all others: copies of frozen weights, position embeddings. */
  readonly caches: number
  /** Between forward and backward, for the gradient. */
  readonly kept: number
  /** The most between the begin of the forward and the end of the backward, what is kept included, gradients of parameters not. */
  readonly peak: number
}

const NAMES = ['trainable', 'frozen', 'caches', 'kept', 'peak'] as const

/** The line through the figures at two sizes, at a third. */
export function along(from: number, a: Figures, to: number, b: Figures, at: number): Figures {
  if (from === to) return b
  const part = (at - from) / (to - from)
  return Object.fromEntries(
    NAMES.map((name) => [name, Math.max(0, a[name] + part * (b[name] - a[name]))]),
  ) as unknown as Figures
}

function weightsOf(modules: readonly torch.nn.Module[]): Pick<Figures, 'trainable' | 'frozen'> {
  let [trainable, all] = [0, 0]
  const bytes = (tensor: torch.Tensor) => tensor.numel() * tensor.elementSize()
  for (const module of modules) {
    for (const tensor of module.stateDict().values()) all += bytes(tensor)
    for (const parameter of module.parameters()) if (parameter.requiresGrad) trainable += bytes(parameter)
  }
  return { trainable, frozen: all - trainable }
}

export interface ProbeOptions {
  readonly precision: 'float32' | 'bfloat16' | 'float16'
  /** Whose kernels run. */
  readonly device: 'cpu' | 'cuda'
}

/**
 * Measures one tower of a model on the CPU.
 *
 * @param given from inputs that are there already to a feature
 */
export function probe(
  modules: readonly torch.nn.Module[],
  { precision, device }: ProbeOptions,
  given: () => torch.Tensor,
): Figures {
  const forward = device === 'cuda' ? () => withKernelsOfGpu(given) : given
  const trains = modules.flatMap((each) => [...each.parameters()]).filter(({ requiresGrad }) => requiresGrad)
  // gradients that are there from the start: what the backward adds to them goes at once
  for (const parameter of trains) parameter.grad = torch.noGrad(() => torch.zerosLike(parameter))
  try {
    const { current: caches } = step()
    const { kept, peak } = step()
    return { ...weightsOf(modules), caches: Math.max(0, caches), kept, peak }
  } finally {
    for (const parameter of trains) parameter.grad = null
  }

  function backward(feature: torch.Tensor): void {
    const run = () => feature.backward(torch.onesLike(feature))
    // checkpointed layers run forward once more
    if (device === 'cuda') withKernelsOfGpu(run)
    else run()
  }

  function step(): { kept: number; peak: number; current: number } {
    using count = new torch.memory.Count('cpu')
    let [kept, peak] = [0, 0]
    torch.scope(() => {
      const feature = inPrecision(precision, 'cpu', () => torch.scope(forward))
      ;({ current: kept, peak } = count.read())
      // a frozen tower has nothing to go back through
      if (feature.requiresGrad) inPrecision(precision, 'cpu', () => backward(feature))
      peak = Math.max(peak, count.read().peak)
    })
    return { kept, peak, current: count.read().current }
  }
}
