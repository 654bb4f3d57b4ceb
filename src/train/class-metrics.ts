import { type ClassTargets, classificationLoss } from '../clip/classifier.js'
import type { Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import type { ClassLabels } from './class-labels.js'
import type { StepOutcome } from './task.js'

/*
 * How a classifier does while it learns. What is reported of it in the end is evaluation's.
 */

/** In percent: images whose highest score is their class's, or findings that are on the right side of even odds. */
export function accuracyOf(logits: torch.Tensor, targets: ClassTargets): number {
  return torch.scope(() =>
    torch.noGrad(() => {
      if (targets.task === 'single') return 100 * logits.argmax(1).eq(targets.labels).to('float32').mean().item()
      const { values, counted } = targets
      const right = logits.gt(0).to('float32').eq(values).to('float32').mul(counted).sum().item()
      return (100 * right) / Math.max(1, counted.sum().item())
    }),
  )
}

/** What a step leaves, out of the scope that it was made in. */
export function outcomeOf(loss: torch.Tensor, logits: torch.Tensor, targets: ClassTargets): StepOutcome {
  const { task, ...tensors } = targets
  torch.keep([loss, logits, ...Object.values(tensors)])
  return { loss, accuracy: () => accuracyOf(logits, targets), held: [logits, ...Object.values(tensors)] }
}

/**
 * The area under the ROC curve: the part of pairs in the right order, ties half. NaN without both kinds.
 *
 * @param truth 1, 0, or anything else for what is left out
 */
export function areaUnderCurve(scores: ArrayLike<number>, truth: ArrayLike<number>): number {
  const order = Array.from({ length: truth.length }, (_, k) => k)
    .filter((k) => truth[k] === 0 || truth[k] === 1)
    .sort((a, b) => scores[a]! - scores[b]!)
  let [negatives, pairs] = [0, 0]
  for (let start = 0; start < order.length; ) {
    let end = start
    let [tiedPositives, tiedNegatives] = [0, 0]
    for (; end < order.length && scores[order[end]!] === scores[order[start]!]; end += 1) {
      if (truth[order[end]!] === 1) tiedPositives += 1
      else tiedNegatives += 1
    }
    pairs += tiedPositives * (negatives + tiedNegatives / 2)
    negatives += tiedNegatives
    start = end
  }
  return pairs / ((order.length - negatives) * negatives)
}

/**
 * Loss, accuracy (in percent) and the mean AUC of the classes that have both kinds of images (each class against all
 * others); no AUC where none has.
 *
 * @param logits [N, C]
 */
export function classMetrics(
  logits: torch.Tensor,
  labels: ClassLabels,
  samples: readonly Sample[],
): Record<string, number> {
  return torch.scope(() =>
    torch.noGrad(() => {
      const { targets, count } = labels.targetsOf(samples, logits.device as torch.Device)
      const truths = samples.map((sample) => labels.valuesOf(sample))
      // the logarithm of the odds orders as the probability does, and does not round to 1
      const ranked = labels.task === 'single' ? logOdds(logits) : logits
      const scores = ranked.cpu().contiguous().toTypedArray() as Float32Array
      const C = labels.classes.length
      const areas = labels.classes
        .map((_, k) =>
          areaUnderCurve(
            samples.map((_, row) => scores[row * C + k]!),
            truths.map((values) => values[k]!),
          ),
        )
        .filter((area) => !Number.isNaN(area))
      return {
        loss: classificationLoss(logits, targets).item() / Math.max(1, count),
        accuracy: accuracyOf(logits, targets),
        ...(areas.length > 0 && { auc: areas.reduce((sum, each) => sum + each, 0) / areas.length }),
      }
    }),
  )
}

/** log(p / (1 - p)) of each class, in float64: [N, C]. */
function logOdds(logits: torch.Tensor): torch.Tensor {
  return torch.scope(() => {
    const wide = logits.to('float64')
    const columns = Array.from({ length: wide.size(1) }, (_, k) => {
      const others = Array.from({ length: wide.size(1) }, (_, j) => j).filter((j) => j !== k)
      const rest = wide.indexSelect(1, torch.tensor(others, { dtype: 'int64', device: wide.device as torch.Device }))
      return wide.select(1, k).sub(rest.logsumexp(1))
    })
    return torch.stack(columns, 1).to('float32')
  })
}
