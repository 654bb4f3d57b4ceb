// What the quickstart says in numbers: a row of summary.json for each evaluation, and the rows as a table.

/**
 * A row from the commands that trained and evaluated.
 *
 * @param {{ name: string, method: string, stage: string, trained: object, evaluation: object }} run
 */
export function rowOf({ name, method, stage, trained, evaluation }) {
  const { accuracy, auc } = evaluation.output.metrics
  return {
    name,
    method,
    stage,
    /** Parameters that the stage trains; of a zero-shot evaluation those of the pre-training. */
    trainable: trained.start.trainable,
    /** Of both commands, start and end included; of a zero-shot evaluation with the pre-training. */
    seconds: trained.seconds + evaluation.seconds,
    peakMiB: Math.max(trained.peakMiB, evaluation.peakMiB),
    accuracy: accuracy.value,
    accuracy95: [accuracy.low, accuracy.high],
    auc: auc.value,
  }
}

/** @param {readonly ReturnType<typeof rowOf>[]} rows */
export function tableOf(rows) {
  const cells = [
    ['', 'trainable', 'seconds', 'peak MiB', 'accuracy [95 %]', 'AUC'],
    ...rows.map(({ name, trainable, seconds, peakMiB, accuracy, accuracy95, auc }) => [
      name,
      trainable.toLocaleString('en-US'),
      seconds.toFixed(0),
      peakMiB.toFixed(0),
      `${accuracy.toFixed(3)} [${accuracy95.map((each) => each.toFixed(3)).join(', ')}]`,
      auc.toFixed(3),
    ]),
  ]
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column].length)))
  return cells
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
