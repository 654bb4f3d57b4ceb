import { test } from './chexpert.mjs'
import { run } from './published.mjs'

await run({ name: 'chexpert-zero-shot', about: 'CheXpert-5x200, zero-shot', tasks: ['zero-shot'], test })
