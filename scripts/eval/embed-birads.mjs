import { run } from './published.mjs'

await run({
  name: 'embed-birads',
  about: 'EMBED, seven BI-RADS assessments, 200 images of each',
  tasks: ['zero-shot', 'linear-probe', 'fine-tune'],
  test: (root, perClass = 200) => ({ kind: 'embed', root, labels: 'birads', split: 'test', perClass }),
  training: (root) => ({ kind: 'embed', root, labels: 'birads', balance: true }),
})
