import { expect, it } from 'vitest'
import { makeProjection } from '../../src/clip/projection.js'
import { imageFeature, TwoTower } from '../../src/clip/two-tower.js'
import { imageEncoderFromPretrained } from '../../src/models/image/index.js'
import * as torch from '../../src/torch/index.js'
import { expectClose, referenceCase } from '../models/reference.js'
import { inScope } from '../torch/helpers.js'

it('gives the image side of a whole step, and the gradients of its encoder', async () => {
  const reference = referenceCase('cleft-step')
  using image = await imageEncoderFromPretrained(`${reference.folder}/image`)
  inScope(() => {
    // the text's feature comes from the case: projections and the loss are what is tested
    const model = new TwoTower({ image, textWidth: 32, textFeature: (text: torch.Tensor) => text, embeddingWidth: 32 })
    model.loadStateDict(
      {
        'image_projection.weight': reference.tensor('in.image_proj.weight'),
        'image_projection.bias': reference.tensor('in.image_proj.bias'),
        'text_projection.weight': torch.eye(32),
        'text_projection.bias': torch.zeros([32]),
        logit_scale: reference.tensor('in.logit_scale'),
      },
      { strict: false },
    )
    const found = model.forward(reference.tensor('in.pixel_values'), reference.tensor('out.text_embedding'))
    found.loss.backward()
    expectClose(found.imageEmbedding, reference.tensor('out.image_embedding'), reference, 'embedding')
    expectClose(found.scores, reference.tensor('out.scores'), reference, 'scores')
    expectClose(found.loss, reference.tensor('out.loss'), reference, 'loss')
    expectClose(model.image_projection.parameters()[0]!.grad!, reference.tensor('grad.image_proj.weight'), reference)
    expectClose(model.logit_scale.grad!, reference.tensor('grad.logit_scale'), reference)
    for (const [name, { grad }] of image.namedParameters()) {
      if (!reference.names.includes(`grad.image.${name}`)) continue
      expectClose(grad!, reference.tensor(`grad.image.${name}`), reference, name)
    }
  })
})

it('pools as it is told', async () => {
  using image = await imageEncoderFromPretrained(referenceCase('dinov2').model)
  using swin = await imageEncoderFromPretrained(referenceCase('swin').model)
  inScope(() => {
    const pixels = referenceCase('dinov2').tensor('in.pixel_values')
    const features = image.forward(pixels)
    const exact = { atol: 0, rtol: 0 }
    expectClose(imageFeature(image, pixels), features.prenorm.all.mean(1), exact)
    expectClose(imageFeature(image, pixels, 'cls'), features.normed.all.select(1, 0), exact)
    expectClose(
      imageFeature(image, pixels, 'mean-patches'),
      features.normed.all.narrow(1, 5, features.normed.all.size(1) - 5).mean(1),
      exact,
    )
    expect(() => imageFeature(swin, torch.zeros([1, 3, 64, 64]), 'cls')).toThrow(/this one has none; use 'pooled'/)
  })
})

it('clamps the temperature, and has MLP projections', () => {
  inScope(() => {
    const projection = makeProjection(6, 4, { kind: 'mlp', hiddenWidth: 10 })
    expect([...projection.stateDict().keys()]).toEqual(
      expect.arrayContaining(['head.0.weight', 'head.1.running_mean', 'head.3.bias', 'head.4.running_var']),
    )
    const out = projection.forward(torch.randn([8, 6]))
    expect(out.shape).toEqual([8, 4])
    expect(out.mean(0).abs().max().item()).toBeLessThan(1e-5)
  })
})
