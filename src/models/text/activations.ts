import * as torch from '../../torch/index.js'

type Tensor = torch.Tensor

export const gelu = (x: Tensor): Tensor => x.gelu()
export const tanhGelu = (x: Tensor): Tensor => x.gelu({ approximate: 'tanh' })

/** The activations that config.json names, as transformers computes them. */
const activations: ReadonlyMap<string, (x: Tensor) => Tensor> = new Map([
  ['gelu', gelu],
  ['gelu_python', gelu],
  ['gelu_new', tanhGelu],
  ['gelu_fast', tanhGelu],
  ['gelu_pytorch_tanh', tanhGelu],
  ['gelu_accurate', tanhGelu],
  ['quick_gelu', torch.nn.functional.quickGelu],
  ['relu', (x) => x.relu()],
  ['silu', (x) => x.silu()],
  ['swish', (x) => x.silu()],
  ['tanh', (x) => x.tanh()],
  ['sigmoid', (x) => x.sigmoid()],
] satisfies [string, (x: Tensor) => Tensor][])

/** The function of a name in config.json. */
export function activationOf(name: string, model: string): (x: Tensor) => Tensor {
  const found = activations.get(name)
  if (found === undefined) {
    throw new RangeError(
      `${model}: expected an activation of ${[...activations.keys()].join(', ')}, but config.json says '${name}'`,
    )
  }
  return found
}
