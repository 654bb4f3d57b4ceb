import { test, training } from './chexpert.mjs'
import { run } from './published.mjs'

await run({
  name: 'chexpert-fine-tune',
  about: 'CheXpert-5x200, fine-tuned on 1, 10 and 100 % of the training images',
  tasks: ['fine-tune'],
  test,
  training,
})
