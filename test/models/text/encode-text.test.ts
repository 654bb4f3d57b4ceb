import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type EncodeTextOptions,
  type Execution,
  encodeText,
  type KeyValue,
  type Pooling,
  planText,
  type TextEncoder,
} from '../../../src/models/text/index.js'
import * as torch from '../../../src/torch/index.js'
import { caseLoss, relative } from './cases.js'
import { captions, type SmallModel, smallModel } from './small.js'

const padToken = 5
const maximumLength = 12
const texts = captions(24, maximumLength)

let scope: torch.Scope
beforeEach(() => {
  scope = new torch.Scope()
})
afterEach(() => {
  scope.dispose()
})

interface Learned {
  prompt: torch.Tensor
  prefix: KeyValue[]
}

function learned(model: TextEncoder): Learned {
  torch.manualSeed(3)
  const leaf = (shape: readonly number[]): torch.Tensor => torch.randn(shape).mul(0.3).detach().requiresGrad_()
  const shape = [1, model.keyValueHeads, 4, model.headWidth]
  return {
    prompt: leaf([3, model.width]),
    prefix: Array.from({ length: model.layerCount }, () => ({ key: leaf(shape), value: leaf(shape) })),
  }
}

/** Features, and gradients of whatever is learned. */
function run(
  model: TextEncoder,
  pool: Pooling,
  execution: Execution,
  leaves: readonly torch.Tensor[],
  options: Partial<EncodeTextOptions>,
) {
  for (const leaf of leaves) leaf.grad = null
  const features = encodeText(model, texts, { pool, execution, padToken, maximumLength, ...options })
  caseLoss(features).backward()
  return { features, gradients: leaves.map((leaf) => leaf.grad!.clone()) }
}

function compareExecutions(
  name: SmallModel,
  pool: Pooling,
  given: 'plain' | 'prompt' | 'prefix' | 'both',
  executions: readonly Execution[],
  checkpointing = false,
) {
  using model = smallModel(name)
  model.running.checkpointing = checkpointing
  const { prompt, prefix } = learned(model)
  // a few weights of the model too
  const weights = model
    .namedParameters()
    .filter(([each]) => /(embed|wte|\.1\.).*weight$/.test(each))
    .map(([, weight]) => weight.requiresGrad_())
  const options: Partial<EncodeTextOptions> = {}
  const leaves: torch.Tensor[] = [...weights]
  if (given === 'prompt' || given === 'both') {
    options.promptEmbeddings = prompt
    leaves.push(prompt)
  }
  if (given === 'prefix' || given === 'both') {
    options.prefix = prefix
    leaves.push(...prefix.flatMap(({ key, value }) => [key, value]))
  }
  const wanted = run(model, pool, 'padded', leaves, { ...options, padTo: 'maximum' })
  expect(wanted.features.shape).toEqual([texts.length, model.width])
  for (const execution of executions) {
    const found = run(model, pool, execution, leaves, options)
    expect(relative(found.features, wanted.features), execution).toBeLessThan(1e-5)
    for (const [index, gradient] of found.gradients.entries()) {
      expect(relative(gradient, wanted.gradients[index]!), `${execution}, gradient ${index}`).toBeLessThan(1e-5)
    }
  }
}

describe.each(['gpt2', 'llama'] as const)('%s', (name) => {
  describe.each(['first-pad', 'last-token', 'mean', 'cls'] as const)('pool %s', (pool) => {
    it.each(['plain', 'prompt', 'prefix', 'both'] as const)(
      'gives the same features and gradients by all executions, %s',
      (given) => {
        scope.run(() => compareExecutions(name, pool, given, ['padded', 'packed', 'tree']))
      },
    )
  })

  it('gives the same with checkpointing', () => {
    scope.run(() => compareExecutions(name, 'first-pad', 'both', ['padded', 'packed', 'tree'], true))
  })

  it('gives the same where the tree is in several parts', () => {
    scope.run(() => {
      using model = smallModel(name)
      const many = Array.from({ length: 90 }, (_, index) => [
        3,
        4,
        5 + (index % 3),
        ...captions(3, 9)[2]!.slice(index % 5),
        6 + (index % 40),
        index % 60,
      ])
      const options = { pool: 'first-pad', padToken } as const
      const plan = planText(model, many, { ...options, execution: 'tree' })
      expect(plan.layout!.parts.length).toBeGreaterThan(1)
      const wanted = encodeText(model, many, { ...options, execution: 'padded' })
      expect(relative(encodeText(model, many, { ...options, execution: 'tree' }), wanted)).toBeLessThan(1e-5)
      expect(relative(encodeText(model, many, { ...options, execution: 'packed' }), wanted)).toBeLessThan(1e-5)
    })
  })

  it('pools what transformers computes at each text alone', () => {
    scope.run(() => {
      using model = smallModel(name)
      for (const [index, text] of texts.slice(0, 6).entries()) {
        const isFull = text.length === maximumLength
        // an empty text is a padding token that sees itself
        const ids = text.length === 0 ? [padToken] : isFull ? text : [...text, padToken]
        const attentionMask = torch.tensor([ids.map((_, k) => (k < text.length || text.length === 0 ? 1 : 0))])
        const alone = model.forward({ inputIds: [ids], attentionMask }).lastHidden.at(0, -1)
        const found = encodeText(model, texts, { pool: 'first-pad', padToken, maximumLength }).at(index)
        expect(relative(found, alone)).toBeLessThan(1e-5)
      }
    })
  })
})

describe('bert', () => {
  it.each(['first-pad', 'last-token', 'mean', 'cls'] as const)(
    'gives the same features and gradients padded and packed, pool %s',
    (pool) => {
      scope.run(() => compareExecutions('bert', pool, 'plain', ['padded', 'packed']))
      scope.run(() => compareExecutions('bert', pool, 'both', ['padded', 'packed']))
    },
  )

  it('refuses the tree, and does not choose it', () => {
    using model = smallModel('bert')
    expect(() => planText(model, texts, { pool: 'cls', padToken, execution: 'tree' })).toThrow(
      /sees to the right; use 'packed'/,
    )
    expect(planText(model, texts, { pool: 'cls', padToken }).execution).not.toBe('tree')
  })
})

describe('planText', () => {
  it('computes each distinct prefix once', () => {
    using model = smallModel('gpt2')
    const plan = planText(
      model,
      [
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 3],
        [1, 2],
      ],
      { pool: 'first-pad', padToken, execution: 'tree' },
    )
    // 1, 2, 3, 4 and a padding token after each of three texts
    expect(plan.length).toBe(7)
    expect(plan.textOf).toEqual([0, 1, 0, 2])
    expect(
      planText(
        model,
        [
          [1, 2, 3],
          [1, 2, 4],
        ],
        { pool: 'last-token', execution: 'tree' },
      ).length,
    ).toBe(4)
    expect(
      planText(
        model,
        [
          [1, 2, 3],
          [1, 2, 4],
          [1, 2, 3],
        ],
        { pool: 'last-token', execution: 'packed' },
      ).length,
    ).toBe(6)
  })

  it('tells a padding token from the same token in a text', () => {
    scope.run(() => {
      using model = smallModel('gpt2')
      const batch = [[1, 2], [1, 2, padToken], [1, 2, padToken, padToken], [padToken], []]
      const options = { pool: 'first-pad', padToken, maximumLength: 8 } as const
      const wanted = encodeText(model, batch, { ...options, execution: 'padded' })
      for (const execution of ['packed', 'tree'] as const) {
        expect(relative(encodeText(model, batch, { ...options, execution }), wanted)).toBeLessThan(1e-5)
      }
    })
  })

  it('chooses the tree where beginnings are shared, and padded rows with dropout of the model itself', () => {
    using model = smallModel('gpt2', { n_embd: 64, n_layer: 2 })
    const options = { pool: 'first-pad', padToken, maximumLength } as const
    const many = Array.from({ length: 72 }, (_, index) => texts[index % texts.length]!)
    expect(planText(model, many, options).execution).toBe('tree')
    model.running.ownDropout = true
    expect(planText(model, many, options).execution).toBe('tree')
    model.train()
    expect(planText(model, many, options).execution).toBe('padded')
  })

  it('says what is wrong', () => {
    using model = smallModel('gpt2')
    const plan = (batch: readonly (readonly number[])[], options: Partial<EncodeTextOptions> = {}) =>
      planText(model, batch, { pool: 'first-pad', padToken, ...options })
    expect(() => plan([])).toThrow('encodeText: expected at least one text, but received an empty batch')
    expect(() => plan([[1], [2, 61]])).toThrow('text 1: expected token ids from 0 to 60, but received 61 at position 1')
    expect(() => plan([[1.5]])).toThrow('received 1.5')
    expect(() => plan([[-1]])).toThrow('received -1')
    expect(() => plan([[1, 2, 3]], { maximumLength: 2 })).toThrow(
      'expected at most 2 tokens, but text 0 has 3; truncate it',
    )
    expect(() => plan([new Array(41).fill(1)])).toThrow('expected at most 40 tokens')
    expect(() => plan([[1]], { maximumLength: 41 })).toThrow('maximumLength of 40 at most')
    expect(() => plan([[1]], { padToken: undefined })).toThrow("expected a padToken for pool 'first-pad'")
    expect(() => plan([[1]], { padTo: 'maximum' })).toThrow('expected a maximumLength')
    expect(() => plan([[]], { pool: 'last-token', padToken: undefined })).toThrow(
      'expected a padToken for an empty text',
    )
    scope.run(() => {
      const promptEmbeddings = torch.zeros([2, 5])
      expect(() => encodeText(model, [[1]], { pool: 'cls', promptEmbeddings })).toThrow(
        'promptEmbeddings of shape [n, 32]',
      )
    })
  })
})
