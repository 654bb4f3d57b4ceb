import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadTextModel } from '../../../src/models/text/load.js'
import * as torch from '../../../src/torch/index.js'
import { type Case, caseLoss, excess, openCase } from './cases.js'

let scope: torch.Scope
beforeEach(() => {
  scope = new torch.Scope()
})
afterEach(() => {
  scope.dispose()
})

function checkGradients(
  name: string,
  model: torch.nn.Module,
  { names, tensor, ...tolerance }: Case,
  prefix: RegExp,
): void {
  const parameters = new Map(model.namedParameters())
  const wanted = names.filter((each) => each.startsWith('grad.'))
  expect(wanted.length, name).toBeGreaterThan(0)
  for (const each of wanted) {
    const found = parameters.get(each.slice('grad.'.length).replace(prefix, ''))?.grad
    expect(found, each).toBeTruthy()
    expect(excess(found!, tensor(each), tolerance), each).toBeLessThanOrEqual(1)
  }
}

describe.each(['gpt2', 'gpt2-inverse-layer', 'llama'])('the case %s', (name) => {
  it.each([
    ['as it is', { checkpointing: false, outputAttentions: false }],
    ['with checkpointing', { checkpointing: true, outputAttentions: false }],
    ['with attentions', { checkpointing: false, outputAttentions: true }],
  ])('gives the outputs and gradients of transformers, %s', async (_, { checkpointing, outputAttentions }) => {
    const given = openCase(name)
    const model = await loadTextModel(`${given.folder}/model`, { trainable: true })
    model.running.checkpointing = checkpointing
    scope.run(() => {
      const inputIds = given.tensor('in.input_ids')
      const attentionMask = given.tensor('in.attention_mask')
      const output = model.forward({ inputIds, attentionMask, outputHiddenStates: true, outputAttentions })
      const hidden = output.lastHidden
      const lengths = attentionMask.sum(1)
      const rows = torch.arange(hidden.size(0))
      const last = hidden.at(rows, lengths.sub(1))
      expect(output.hiddenStates).toHaveLength(model.layerCount + 1)
      expect(output.attentions?.length ?? 0).toBe(outputAttentions ? model.layerCount : 0)
      expect(excess(hidden.mul(attentionMask.unsqueeze(-1)), given.tensor('out.hidden'), given)).toBeLessThanOrEqual(1)
      expect(excess(last, given.tensor('out.last_token'), given)).toBeLessThanOrEqual(1)
      const pads = hidden.at(rows.narrow(0, 1, 3), lengths.narrow(0, 1, 3))
      expect(excess(pads, given.tensor('out.first_pad'), given)).toBeLessThanOrEqual(1)
      caseLoss(last).backward()
      checkGradients(name, model, given, /^(transformer|model)\./)
    })
    model.dispose()
  })
})

describe('the case bert', () => {
  it.each([false, true])('gives the outputs and gradients of transformers, checkpointing %s', async (checkpointing) => {
    const given = openCase('bert')
    const model = await loadTextModel(`${given.folder}/model`, { trainable: true })
    model.running.checkpointing = checkpointing
    scope.run(() => {
      const attentionMask = given.tensor('in.attention_mask')
      const output = model.forward({ inputIds: given.tensor('in.input_ids'), attentionMask })
      const kept = output.lastHidden.mul(attentionMask.unsqueeze(-1))
      expect(excess(kept, given.tensor('out.hidden'), given)).toBeLessThanOrEqual(1)
      expect(excess(output.pooled!, given.tensor('out.pooled'), given)).toBeLessThanOrEqual(1)
      caseLoss(output.pooled!).backward()
      checkGradients('bert', model, given, /^bert\./)
    })
    model.dispose()
  })

  it('keeps the first layers alone where asked', async () => {
    const given = openCase('bert')
    const whole = await loadTextModel(`${given.folder}/model`)
    const half = await loadTextModel(`${given.folder}/model`, { bert: { layers: 1 } })
    scope.run(() => {
      const input = { inputIds: given.tensor('in.input_ids'), attentionMask: given.tensor('in.attention_mask') }
      const states = whole.forward({ ...input, outputHiddenStates: true }).hiddenStates
      expect(half.forward(input).lastHidden.equal(states![1]!)).toBe(true)
    })
    expect(half.layerCount).toBe(1)
    whole.dispose()
    half.dispose()
  })
})
