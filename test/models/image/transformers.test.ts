import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { imageEncoderFromPretrained, type PositionMethod, resizePositions } from '../../../src/models/image/index.js'
import * as torch from '../../../src/torch/index.js'
import { inScope } from '../../torch/helpers.js'
import { expectClose } from '../reference.js'

/** Made by fixtures/make_models.py: what test/reference has no case of. */
const fixtures = fileURLToPath(new URL('fixtures', import.meta.url))
const models = readdirSync(fixtures, { withFileTypes: true }).filter((each) => each.isDirectory())

describe('the numbers of transformers', () => {
  it.each(models.map(({ name }) => name))('%s', async (name) => {
    using encoder = await imageEncoderFromPretrained(`${fixtures}/${name}`, {
      logger: { warn: (message) => expect.fail(message) },
    })
    inScope(() => {
      const io = torch.openSafetensors(`${fixtures}/${name}/io.safetensors`)
      const { hidden, pooled } = torch.noGrad(() => encoder.forward(io.tensor('in')))
      const tolerance = { atol: 3e-5, rtol: 3e-5 }
      expectClose(hidden, io.tensor('hidden'), tolerance, 'hidden')
      if (io.has('pooled'))
        expectClose(pooled.reshape(io.tensor('pooled').shape), io.tensor('pooled'), tolerance, 'pooled')
    })
  })
})

describe('position embeddings on another grid', () => {
  const methods: Record<string, PositionMethod> = { scale: 'scale-offset', aa: 'size-antialias', size: 'size' }

  it('are what the published methods make of them', () => {
    inScope(() => {
      const io = torch.openSafetensors(`${fixtures}/positions.safetensors`)
      const cases = io.names.filter((name) => name !== 'p')
      expect(cases.length).toBe(6)
      for (const name of cases) {
        const [method, rows, columns] = name.split('.')
        const made = resizePositions(io.tensor('p'), [37, 37], [Number(rows), Number(columns)], methods[method!]!)
        const patches = made.narrow(1, 1, made.size(1) - 1)
        expectClose(patches, io.tensor(name), { atol: 1e-6, rtol: 1e-6 }, name)
      }
    })
  })

  it('are computed in float32 for weights of lower precision', () => {
    inScope(() => {
      const positions = torch.openSafetensors(`${fixtures}/positions.safetensors`).tensor('p').bfloat16()
      const made = resizePositions(positions, [37, 37], [16, 16], 'size-antialias')
      const wanted = resizePositions(positions.float(), [37, 37], [16, 16], 'size-antialias').bfloat16()
      expect(made.dtype).toBe('bfloat16')
      expectClose(made.float(), wanted.float(), { atol: 0, rtol: 0 })
    })
  })
})
