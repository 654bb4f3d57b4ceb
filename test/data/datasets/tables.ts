import { CHEXPERT_FINDINGS } from '../../../src/data/captions/index.js'
import { Random } from '../../../src/data/random.js'

/** A train.csv of patients with one to three studies each; about a third of the rows have one finding alone. */
export function chexpertCsv(patients: number, seed = 0): string {
  const random = new Random(seed, 'chexpert.csv')
  const columns = ['Path', 'Sex', 'Age', 'Frontal/Lateral', 'AP/PA', 'No Finding', ...CHEXPERT_FINDINGS.slice(0, -1)]
  const rows: string[] = []
  for (let patient = 1; patient <= patients; patient += 1) {
    const studies = 1 + random.integer(3)
    for (let study = 1; study <= studies; study += 1) {
      const view = random.pick(['AP', 'AP', 'PA', ''])
      const path = `CheXpert-v1.0-small/train/patient${String(patient).padStart(5, '0')}/study${study}/view1_${view === '' ? 'lateral' : 'frontal'}.jpg`
      const alone = random.chance(0.5)
        ? random.pick(['Atelectasis', 'Edema', 'Cardiomegaly', 'Pleural Effusion', 'Consolidation'])
        : null
      const labels = columns.slice(5).map((name) => {
        if (name === alone) return '1.0'
        return random.pick(alone === null ? ['', '', '1.0', '0.0', '-1.0'] : ['', '0.0'])
      })
      rows.push(
        [
          path,
          random.pick(['Male', 'Female']),
          20 + random.integer(70),
          view === '' ? 'Lateral' : 'Frontal',
          view,
          ...labels,
        ].join(','),
      )
    }
  }
  return [columns.join(','), ...rows, ''].join('\n')
}
