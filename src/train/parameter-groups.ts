import * as torch from '../torch/index.js'

export interface GroupOptions {
  weightDecay: number
  /** What the rate is multiplied with for each layer of the image encoder that is further from its end. Default: 1. */
  layerDecay?: number
}

/** A group of parameters whose rate is the schedule's times `rateScale`. */
export type RateGroup = torch.optim.DecayGroup & { rateScale: number }

/** The layer of a parameter of the image encoder: 0 for what comes before the layers, their count + 1 for what follows. */
function depthOf(name: string, layers: number): number {
  if (name.startsWith('image.feature_decoder.')) return layers + 1
  const layer = /\.(?:layers?|blocks|h)\.(\d+)\./.exec(name)
  if (layer !== null) return Number(layer[1]) + 1
  return /^image\.(embeddings|conv1|bn1|patch_embed)/.test(name) ? 0 : layers + 1
}

/**
 * What trains, in groups of one rate and one decay: matrices and larger tensors decay, the rest (biases, norms, factors,
 * the temperature) does not; with `layerDecay` the image encoder's layers learn the slower the earlier they are (as in
 * BEiT and MAE's fine-tuning). The groups' order depends on the model alone.
 */
export function parameterGroups(model: torch.nn.Module, options: GroupOptions): RateGroup[] {
  const { weightDecay, layerDecay = 1 } = options
  const named = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  const layers = Math.max(0, ...named.filter(([name]) => name.startsWith('image.')).map(([name]) => depthOf(name, -1)))
  const byRate = new Map<number, torch.Tensor[]>()
  for (const [name, parameter] of named) {
    const rateScale = name.startsWith('image.') ? layerDecay ** (layers + 1 - depthOf(name, layers)) : 1
    byRate.set(rateScale, [...(byRate.get(rateScale) ?? []), parameter])
  }
  return [...byRate].flatMap(([rateScale, parameters]) =>
    torch.optim.decayGroups(parameters, { weightDecay }).map((group) => ({ ...group, rateScale })),
  )
}

/**
 * Gives parameters that train memory of their own. Weights that are mapped from a file lie in memory as the file has them,
 * and a product with them may differ in its last bit from one with the same weights elsewhere: a run that goes on, whose
 * weights come out of another file, would not be exact.
 */
export function ownMemory(model: torch.nn.Module): void {
  for (const [, parameter] of model.namedParameters()) {
    if (!parameter.requiresGrad) continue
    torch.scope(() => {
      parameter.data = torch.noGrad(() => parameter.clone())
    })
  }
}

/** A test of names by patterns in which `*` stands for anything. */
function matcher(pattern: string): (name: string) => boolean {
  const expression = pattern
    .split('*')
    .map((each) => each.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*')
  const whole = new RegExp(`^${expression}$`)
  return (name) => whole.test(name)
}

/**
 * Freezes and then unfreezes parameters by name: `image.embeddings.*`.
 *
 * @throws RangeError for a pattern that fits no parameter, and where nothing is left to train
 */
export function applyFreezing(
  model: torch.nn.Module,
  { freeze = [], unfreeze = [] }: { freeze?: readonly string[]; unfreeze?: readonly string[] },
): void {
  const named = model.namedParameters()
  for (const [patterns, trains] of [
    [freeze, false],
    [unfreeze, true],
  ] as const) {
    for (const pattern of patterns) {
      const fits = matcher(pattern)
      const found = named.filter(([name]) => fits(name))
      if (found.length === 0) {
        throw new RangeError(
          `${trains ? 'unfreeze' : 'freeze'}: expected a pattern of parameter names, but '${pattern}' fits none; they are like ${named
            .slice(0, 3)
            .map(([name]) => name)
            .join(', ')}`,
        )
      }
      for (const [, parameter] of found) parameter.requiresGrad_(trains)
    }
  }
  if (named.every(([, { requiresGrad }]) => !requiresGrad)) {
    throw new RangeError('freeze: expected something to train, but every parameter is frozen')
  }
}
