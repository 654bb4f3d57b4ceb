import { test, training } from './chexpert.mjs'
import { run } from './published.mjs'

await run({
  name: 'chexpert-linear-probe',
  about: 'CheXpert-5x200, a linear probe on 1, 10 and 100 % of the training images',
  tasks: ['linear-probe'],
  test,
  training,
})
