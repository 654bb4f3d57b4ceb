import { run } from './published.mjs'

await run({
  name: 'embed-density',
  about: 'EMBED, four classes of breast density, 500 images of each',
  tasks: ['zero-shot', 'linear-probe', 'fine-tune'],
  test: (root, perClass = 500) => ({ kind: 'embed', root, labels: 'density', split: 'test', perClass }),
  training: (root) => ({ kind: 'embed', root, labels: 'density', balance: true }),
})
