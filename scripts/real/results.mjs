// Several folds as one test: each image was tested once, by the model that had not seen its patient.
import { summarize } from '../../dist/eval/index.js'

/** For each stage all folds' predictions together, with intervals over patients; the AUC as the folds' mean. */
export async function pooled(results) {
  const rows = []
  for (const stage of new Set(results.map((each) => each.stage))) {
    const own = results.filter((each) => each.stage === stage)
    const together = joined(own.map(({ predictions }) => predictions))
    const { metrics, images, patients } = await summarize(together, { provenance: provenanceOf(stage) })
    const mean = (pick) => own.reduce((sum, each) => sum + pick(each), 0) / own.length
    rows.push({
      stage,
      folds: own.length,
      images,
      patients,
      accuracy: metrics.accuracy,
      auc: own.length === 1 ? metrics.auc : { ...metrics.auc, value: mean(({ auc }) => auc.value) },
    })
  }
  return rows
}

function joined(list) {
  const [first] = list
  const scores = new Float32Array(list.reduce((sum, each) => sum + each.scores.length, 0))
  let at = 0
  for (const each of list) {
    scores.set(each.scores, at)
    at += each.scores.length
  }
  return {
    ...first,
    scores,
    labels: Int32Array.from(list.flatMap(({ labels }) => [...labels])),
    patients: list.flatMap(({ patients }) => patients),
    attributes: list.flatMap(({ attributes }) => attributes),
    paths: list.flatMap(({ paths }) => paths),
  }
}

const provenanceOf = (stage) => ({
  evaluation: stage,
  name: stage,
  checkpoint: null,
  data: { kind: 'table', split: 'test', hash: '' },
  prompts: [],
  ensemble: null,
  preprocessing: {},
  settings: {},
})

export function shownTable(rows) {
  const shown = ({ value, low, high }) => `${value.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`
  const lines = rows.map(({ stage, folds, images, accuracy, auc }) => [
    stage,
    String(folds),
    String(images),
    shown(accuracy),
    shown(auc),
  ])
  const table = [['stage', 'folds', 'images', 'accuracy', 'AUC'], ...lines]
  const widths = table[0].map((_, k) => Math.max(...table.map((row) => row[k].length)))
  return table
    .map((row) =>
      row
        .map((cell, k) => cell.padEnd(widths[k]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
