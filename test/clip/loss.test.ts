import { describe, expect, it } from 'vitest'
import { contrastiveLoss, retrievalAccuracy, similarityScores } from '../../src/clip/loss.js'
import * as torch from '../../src/torch/index.js'
import { expectClose, referenceCase } from '../models/reference.js'
import { inScope } from '../torch/helpers.js'

describe('the contrastive loss', () => {
  it('is the reference, with its gradients', () => {
    inScope(() => {
      const reference = referenceCase('contrastive-loss')
      const [image, text, scale] = ['in.image', 'in.text', 'in.logit_scale'].map((name) =>
        reference.tensor(name).requiresGrad_(),
      ) as [torch.Tensor, torch.Tensor, torch.Tensor]
      const { loss, scores } = contrastiveLoss(image, text, scale)
      loss.backward()
      expectClose(loss, reference.tensor('out.loss'), reference, 'loss')
      expectClose(scores, reference.tensor('out.scores'), reference, 'scores')
      expectClose(image.grad!, reference.tensor('grad.image'), reference, 'image')
      expectClose(text.grad!, reference.tensor('grad.text'), reference, 'text')
      expectClose(scale.grad!, reference.tensor('grad.logit_scale'), reference, 'logit_scale')
      expect(retrievalAccuracy(scores, 1)).toBeCloseTo(reference.tensor('out.acc1').item(), 4)
      expect(retrievalAccuracy(scores, 5)).toBeCloseTo(reference.tensor('out.acc5').item(), 4)
    })
  })

  it('shares the target among equal captions', () => {
    inScope(() => {
      const generator = new torch.Generator().manualSeed(1)
      const image = torch.randn([3, 4], { generator })
      const text = torch.randn([3, 4], { generator })
      const scale = torch.tensor(1)
      const captions = ['edema', 'no finding', 'edema']
      const { loss, scores } = contrastiveLoss(image, text, scale, { targets: 'same-caption', captions })
      const target = torch.tensor([
        [0.5, 0, 0.5],
        [0, 1, 0],
        [0.5, 0, 0.5],
      ])
      const byHand = [scores, scores.t()].map((each) => each.logSoftmax(1).mul(target).sum().neg().div(3).item())
      expect(loss.item()).toBeCloseTo(byHand[0]! + byHand[1]!, 5)
      const distinct = contrastiveLoss(image, text, scale, { targets: 'same-caption', captions: [1, 2, 3] })
      expect(distinct.loss.item()).toBeCloseTo(contrastiveLoss(image, text, scale).loss.item(), 6)
    })
  })

  it('keeps scores in float32 inside autocast', () => {
    inScope(() => {
      const image = torch.randn([4, 8], { generator: new torch.Generator().manualSeed(2) })
      const scale = torch.tensor(2)
      const plain = similarityScores(image, image, scale)
      const lower = torch.autocast({ device: 'cpu' }, () => similarityScores(image, image, scale))
      expect(lower.dtype).toBe('float32')
      expectClose(lower, plain, { atol: 0, rtol: 0 })
    })
  })

  it('refuses what makes no pairs', () => {
    inScope(() => {
      const scale = torch.tensor(1)
      const [two, three] = [torch.ones([2, 4]), torch.ones([3, 4])]
      expect(() => contrastiveLoss(two, three, scale)).toThrow(/2 images and 3 captions/)
      expect(() => contrastiveLoss(two, torch.ones([2, 5]), scale)).toThrow(/\[2,4\] and \[2,5\]/)
      expect(() => contrastiveLoss(torch.ones([0, 4]), torch.ones([0, 4]), scale)).toThrow(/batch is empty/)
      expect(() => contrastiveLoss(two, two, scale, { targets: 'same-caption' })).toThrow(
        /a caption for each of 2 pairs/,
      )
    })
  })
})

it('counts equal captions as found where asked', () => {
  inScope(() => {
    // text 1 is best for image 0, and the other way round; both are one caption
    const scores = torch.tensor([
      [0, 1, 0],
      [1, 0, 0],
      [0, 0, 1],
    ])
    expect(retrievalAccuracy(scores, 1)).toBeCloseTo(100 / 3, 10)
    expect(retrievalAccuracy(scores, 1, { targets: 'same-caption', captions: ['a', 'a', 'b'] })).toBe(100)
    expect(retrievalAccuracy(scores, 10)).toBe(100)
  })
})
