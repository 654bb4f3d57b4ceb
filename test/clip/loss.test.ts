import { describe, expect, it } from 'vitest'
import { contrastiveLoss, corpusLoss, retrievalAccuracy, similarityScores } from '../../src/clip/loss.js'
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

describe('the loss against a corpus', () => {
  const owners = [2, 0, 2, 4]
  const features = (seed: number) => {
    const generator = new torch.Generator().manualSeed(seed)
    const made = (count: number) => torch.randn([count, 3], { generator, dtype: 'float64' }).requiresGrad_()
    return { image: made(4), corpus: made(5), scale: torch.tensor(0.7, { dtype: 'float64' }).requiresGrad_() }
  }
  const rowsOf = (tensor: torch.Tensor) =>
    tensor
      .detach()
      .unbind(0)
      .map((row) => Array.from(row.toTypedArray(), Number))
  /** Sums over single numbers, for every image and every text of the batch. */
  const byHand = (
    image: number[][],
    corpus: number[][],
    scale: number,
    { isShared, logShares }: { isShared: boolean; logShares: number[] },
  ): number => {
    const length = (vector: number[]) => Math.hypot(...vector)
    const score = (a: number[], b: number[]) =>
      (Math.exp(scale) * a.reduce((sum, each, at) => sum + each * b[at]!, 0)) / (length(a) * length(b))
    const logSum = (values: number[]) => Math.log(values.reduce((sum, each) => sum + Math.exp(each), 0))
    let sum = 0
    for (const [at, one] of image.entries()) {
      const toText = corpus.map((text, row) => score(one, text) + logShares[row]!)
      sum += logSum(toText) - toText[owners[at]!]!
      const toImage = image.map((other) => score(other, corpus[owners[at]!]!))
      const right = image.flatMap((_, other) =>
        (isShared ? owners[other] === owners[at] : other === at) ? [other] : [],
      )
      for (const each of right) sum += (logSum(toImage) - toImage[each]!) / right.length
    }
    return sum / image.length
  }

  it.each([
    ['identity', false],
    ['same-caption', true],
  ] as const)('is what a naive computation has, with %s targets and its gradients', (targets, isShared) => {
    for (const logShares of [null, [0.1, 0.2, 0.4, 0.2, 0.1].map(Math.log)]) {
      inScope(() => {
        const { image, corpus, scale } = features(3)
        const options = { owners, targets, captions: owners }
        const priors = logShares === null ? null : torch.tensor(logShares, { dtype: 'float64' })
        const { loss, scores } = corpusLoss(image, corpus, scale, { ...options, logShares: priors })
        loss.backward()
        const [own, all] = [rowsOf(image), rowsOf(corpus)]
        const naive = (i = own, c = all, s = scale.item()) =>
          byHand(i, c, s, { isShared, logShares: logShares ?? [0, 0, 0, 0, 0] })
        expect(loss.item()).toBeCloseTo(naive(), 10)
        expect(scores.shape).toEqual([4, 4])
        const step = 1e-5
        const moved = (rows: number[][], row: number, column: number, by: number) =>
          rows.map((each, r) => each.map((value, c) => (r === row && c === column ? value + by : value)))
        for (let column = 0; column < 3; column += 1) {
          for (let row = 0; row < 4; row += 1) {
            const change = naive(moved(own, row, column, step)) - naive(moved(own, row, column, -step))
            expect(image.grad!.select(0, row).select(0, column).item()).toBeCloseTo(change / (2 * step), 7)
          }
          for (let row = 0; row < 5; row += 1) {
            const change = naive(own, moved(all, row, column, step)) - naive(own, moved(all, row, column, -step))
            expect(corpus.grad!.select(0, row).select(0, column).item()).toBeCloseTo(change / (2 * step), 7)
          }
        }
        const change = naive(own, all, scale.item() + step) - naive(own, all, scale.item() - step)
        expect(scale.grad!.item()).toBeCloseTo(change / (2 * step), 7)
      })
    }
  })

  it("is the batch's own where the batch holds every caption once", () => {
    inScope(() => {
      const { corpus, image, scale } = features(4)
      const [batch, order] = [image.detach(), [3, 1, 0, 2]]
      const texts = corpus.detach().narrow(0, 0, 4)
      const own = texts.indexSelect(0, torch.tensor(order, { dtype: 'int64' }))
      for (const targets of ['identity', 'same-caption'] as const) {
        const local = contrastiveLoss(batch, own, scale, { targets, captions: order })
        const even = torch.full([4], Math.log(0.25), { dtype: 'float64' })
        for (const logShares of [null, even]) {
          const all = corpusLoss(batch, texts, scale, { owners: order, targets, captions: order, logShares })
          expect(all.loss.item()).toBeCloseTo(local.loss.item(), 12)
          expectClose(all.scores, local.scores, { atol: 1e-12, rtol: 0 })
        }
      }
    })
  })

  it('refuses owners and shares that are of another corpus', () => {
    inScope(() => {
      const { image, corpus, scale } = features(5)
      expect(() => corpusLoss(image, corpus, scale, { owners: [0, 1] })).toThrow(/one of 5 texts for each of 4 images/)
      expect(() => corpusLoss(image, corpus, scale, { owners: [0, 1, 2, 5] })).toThrow(/received \[0,1,2,5\]/)
      const logShares = torch.zeros([4])
      expect(() => corpusLoss(image, corpus, scale, { owners, logShares })).toThrow(
        /logShares \[5\], but received \[4\]/,
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
