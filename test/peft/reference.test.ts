import { describe, expect, it } from 'vitest'
import { loadAdapter, trainableParameters } from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'
import { excess, gradients, lastToken, loadReferenceModel, openCase, referenceLoss, referencePath } from './helpers.js'

const cases = [
  'gpt2-lora',
  'gpt2-lora-all',
  'gpt2-dora',
  'gpt2-ia3',
  'gpt2-prefix',
  'gpt2-prompt',
  'gpt2-adalora',
  'llama-lora',
  'llama-ia3',
]

describe.each(cases)('%s', (name) => {
  it.each([false, true])('has the outputs and gradients of Python (checkpointing: %s)', async (checkpointing) => {
    const model = await loadReferenceModel(name)
    const adapted = await loadAdapter(model, `${referencePath(name)}/adapter`, { trainable: true })
    adapted.eval()
    model.running.checkpointing = checkpointing
    const { tensors, rtol, atol, trainable } = openCase(name)
    expect(trainableParameters(adapted).trainable).toBe(trainable)
    torch.scope(() => {
      const input = { inputIds: tensors.get('in.input_ids')!, attentionMask: tensors.get('in.attention_mask')! }
      const { lastHidden } = adapted.forward(input)
      const extra = lastHidden.shape[1]! - input.inputIds.shape[1]!
      const last = lastToken(lastHidden, input.attentionMask, extra)
      expect(excess(last, tensors.get('out.last_token')!, rtol, atol)).toBeLessThanOrEqual(0)
      const ones = torch.ones([input.attentionMask.shape[0]!, extra], { dtype: 'int64' })
      const seen = torch.cat([ones, input.attentionMask], 1).unsqueeze(2)
      expect(excess(lastHidden.mul(seen), tensors.get('out.hidden')!, rtol, atol)).toBeLessThanOrEqual(0)
      referenceLoss(last).backward()
    })
    const found = gradients(adapted, name.startsWith('llama') ? 'model.' : 'transformer.')
    const expected = [...tensors].filter(([key]) => key.startsWith('grad.'))
    expect([...found.keys()].sort()).toEqual(expected.map(([key]) => key.slice(5)).sort())
    for (const [key, gradient] of expected) {
      const own = found.get(key.slice(5))
      expect(own, key).not.toBeNull()
      expect(excess(own!, gradient, rtol, atol), key).toBeLessThanOrEqual(0)
    }
    // the frozen model has none
    expect(model.parameters().filter((each) => each.requiresGrad && !each.isLeaf)).toEqual([])
    const frozen = adapted.namedParameters().filter(([, each]) => !each.requiresGrad)
    expect(frozen.length).toBeGreaterThan(0)
    expect(frozen.filter(([, each]) => each.grad !== null)).toEqual([])
  })
})
