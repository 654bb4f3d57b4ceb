import type { nn } from '../torch/index.js'

export interface TrainableParameter {
  name: string
  shape: readonly number[]
  count: number
}

export interface TrainableParameters {
  parameters: TrainableParameter[]
  /** Numbers that train. */
  trainable: number
  /** All numbers of the model, with its adapters. */
  total: number
  /** In words: 'trainable 3,072 of 67,440 (4.56 %)'. */
  summary: string
}

const grouped = (value: number): string => value.toLocaleString('en-US')

/** What trains in a model, with counts. Works on 'meta' too. */
export function trainableParameters(model: nn.Module): TrainableParameters {
  const all = model.namedParameters().map(([name, parameter]) => ({
    name,
    shape: parameter.shape,
    count: parameter.numel(),
    trains: parameter.requiresGrad,
  }))
  const sum = (counts: readonly { count: number }[]): number => counts.reduce((total, { count }) => total + count, 0)
  const parameters = all.filter(({ trains }) => trains).map(({ name, shape, count }) => ({ name, shape, count }))
  const [trainable, total] = [sum(parameters), sum(all)]
  const share = total === 0 ? 0 : (100 * trainable) / total
  return {
    parameters,
    trainable,
    total,
    summary: `trainable ${grouped(trainable)} of ${grouped(total)} (${share.toFixed(2)} %)`,
  }
}
