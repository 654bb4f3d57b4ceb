import { describe, expect, it } from 'vitest'
import { type ImageEncoder, type ImageFeatures, imageEncoderFromPretrained } from '../../../src/models/image/index.js'
import * as torch from '../../../src/torch/index.js'
import { inScope } from '../../torch/helpers.js'
import { expectClose, expectGradients, lineLoss, referenceCase } from '../reference.js'

/** What the loss of a case is made of. */
const losses: Record<string, (features: ImageFeatures) => torch.Tensor> = {
  dinov2: ({ hidden }) => lineLoss(hidden.mean(1)),
  'dinov2-resized': ({ hidden }) => lineLoss(hidden.mean(1)),
  vit: ({ hidden }) => lineLoss(hidden.select(1, 0)),
  'clip-vit': ({ pooled }) => lineLoss(pooled),
  resnet50: ({ pooled }) => lineLoss(pooled),
  swin: ({ pooled }) => lineLoss(pooled),
}

const outputs: Record<string, (features: ImageFeatures) => torch.Tensor> = {
  'out.hidden': ({ hidden }) => hidden,
  'out.prenorm': ({ prenorm }) => prenorm.all,
  'out.cls': ({ normed }) => normed.cls!,
  'out.pooled': ({ pooled }) => pooled,
}

async function encoderOf(name: string): Promise<ImageEncoder> {
  return imageEncoderFromPretrained(referenceCase(name).model, { logger: { warn: (message) => expect.fail(message) } })
}

describe.each(Object.keys(losses))('%s', (name) => {
  it('gives what transformers (or torchvision) gives, and its gradients', async () => {
    using encoder = await encoderOf(name)
    inScope(() => {
      const reference = referenceCase(name)
      const features = encoder.forward(reference.tensor('in.pixel_values'))
      for (const output of reference.names.filter((each) => each.startsWith('out.'))) {
        expectClose(outputs[output]!(features), reference.tensor(output), reference, output)
      }
      losses[name]!(features).backward()
      expectGradients(encoder, reference)
    })
  })

  it('gives equal gradients with activation checkpointing', async () => {
    using encoder = await encoderOf(name)
    inScope(() => {
      const reference = referenceCase(name)
      const pixels = reference.tensor('in.pixel_values')
      losses[name]!(encoder.forward(pixels)).backward()
      const before = new Map(encoder.namedParameters().map(([each, { grad }]) => [each, grad?.clone() ?? null]))
      encoder.zeroGrad()
      losses[name]!(encoder.forward(pixels, { checkpoint: true })).backward()
      for (const [each, { grad }] of encoder.namedParameters()) {
        const wanted = before.get(each) ?? null
        expect(grad === null, each).toBe(wanted === null)
        if (wanted !== null) expectClose(grad!, wanted, { atol: 1e-6, rtol: 1e-5 }, each)
      }
    })
  })

  it('makes no tensor that a scope does not free', async () => {
    using encoder = await encoderOf(name)
    const pixels = referenceCase(name).tensor('in.pixel_values')
    const step = () =>
      torch.scope(() => {
        losses[name]!(encoder.forward(pixels)).backward()
        encoder.zeroGrad()
      })
    step()
    const before = torch.memory.counters().live
    step()
    step()
    expect(torch.memory.counters().live).toBe(before)
    pixels.dispose()
  })
})
