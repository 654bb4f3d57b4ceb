import { describe, expect, it } from 'vitest'
import { type Execution, encodeText } from '../../src/models/text/index.js'
import { type AdapterConfig, addAdapter } from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'
import { captions, smallModel } from '../models/text/small.js'

const padToken = 5
const maximumLength = 12
const texts = captions(16, maximumLength)
const executions: Execution[] = ['padded', 'packed', 'tree']

const configs: AdapterConfig[] = [
  { kind: 'lora', r: 4 },
  { kind: 'ia3' },
  { kind: 'prefix', numVirtualTokens: 3 },
  { kind: 'prompt', numVirtualTokens: 3 },
  { kind: 'adalora', initR: 4, targetR: 2, totalStep: 100 },
]

/** The largest difference over the largest value. */
const relative = (a: torch.Tensor, b: torch.Tensor) =>
  torch.scope(() => torch.noGrad(() => a.sub(b).abs().max().item() / Math.max(b.abs().max().item(), 1e-6)))

describe.each(configs)('$kind', (config) => {
  it.each(['gpt2', 'llama'] as const)('gives equal features and gradients in each execution of %s', (name) => {
    const adapted = addAdapter(smallModel(name), config)
    torch.manualSeed(2)
    torch.noGrad(() => {
      for (const parameter of adapted.adapterParameters().values()) parameter.add_(torch.randnLike(parameter).mul(0.1))
    })
    const [first, ...others] = executions.map((execution) => {
      adapted.zeroGrad()
      const features = encodeText(adapted, texts, { pool: 'first-pad', padToken, maximumLength, execution })
      features
        .mul(torch.linspace(-1, 1, features.numel()).view(features.shape))
        .sum()
        .backward()
      const gradients = Array.from(adapted.adapterParameters(), ([each, { grad }]) => {
        expect(grad, `${execution}: ${each}`).not.toBeNull()
        return grad!.clone()
      })
      return { features, gradients }
    })
    expect(first!.gradients.length).toBeGreaterThan(0)
    for (const { features, gradients } of others) {
      expect(relative(features, first!.features)).toBeLessThan(1e-5)
      const [a, b] = [gradients, first!.gradients].map((each) => torch.cat(each.map((one) => one.reshape([-1]))))
      expect(relative(a!, b!)).toBeLessThan(1e-5)
    }
  })
})
