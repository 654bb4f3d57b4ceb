import { run } from './published.mjs'

await run({
  name: 'rsna',
  about: 'RSNA pneumonia, as many images of each class in the test',
  tasks: ['zero-shot', 'linear-probe', 'fine-tune'],
  test: (root, perClass) => ({ kind: 'rsna', root, split: 'test', ...(perClass !== undefined && { perClass }) }),
  training: (root) => ({ kind: 'rsna', root, balance: true, keepSize: true }),
})
