import { chexpert } from './chexpert/kind.js'
import { embed } from './embed/kind.js'
import type { PhantomKind, PhantomSettings } from './kind.js'
import { rsna } from './rsna/kind.js'

export const PHANTOM_KINDS: Readonly<Record<PhantomSettings['kind'], PhantomKind>> = { chexpert, rsna, embed }
