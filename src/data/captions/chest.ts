import type { ClassPrompt } from '../sample.js'
import { NEGATIVE, POSITIVE } from '../sample.js'

/*
 * Captions of chest X-rays, made from their labels. Published: datasets/chexpert_dataset.py, eval_dataset.py, constants_val.py
 * (github.com/XYPB/CLEFT). Ours differ in one thing: an image without any positive finding has 'no finding', where the published caption
 * breaks off after 'with'.
 */

/** In the published order, in which captions name them, whatever the table's own. */
export const CHEXPERT_FINDINGS = [
  'Enlarged Cardiomediastinum',
  'Cardiomegaly',
  'Lung Opacity',
  'Lung Lesion',
  'Edema',
  'Consolidation',
  'Pneumonia',
  'Atelectasis',
  'Pneumothorax',
  'Pleural Effusion',
  'Pleural Other',
  'Fracture',
  'Support Devices',
  'No Finding',
] as const

/** The classes of CheXpert-5x200, in their published order. */
export const FIVE_FINDINGS = ['Atelectasis', 'Edema', 'Cardiomegaly', 'Pleural Effusion', 'Consolidation'] as const

/** Of ChestX-ray14, in the order of its publication (Wang et al. 2017); its tables name findings with '_' for a space. */
export const NIH_FINDINGS = [
  'Atelectasis',
  'Cardiomegaly',
  'Effusion',
  'Infiltration',
  'Mass',
  'Nodule',
  'Pneumonia',
  'Pneumothorax',
  'Consolidation',
  'Edema',
  'Emphysema',
  'Fibrosis',
  'Pleural_Thickening',
  'Hernia',
] as const

/**
 * plain: the template and the positive findings; negative: also 'but this image has no' and the negative ones; prompt: the positive findings
 * alone, for learned contexts.
 */
export const CHEST_STYLES = ['plain', 'negative', 'prompt'] as const
export type ChestStyle = (typeof CHEST_STYLES)[number]

/** Without the space that follows it. */
export const CHEST_TEMPLATE = 'this is a chest x ray of a patient with'
const NEGATIVE_TEMPLATE = 'but this image has no'
const NO_FINDING = 'no finding'

const join = (...parts: readonly string[]): string => parts.filter((part) => part !== '').join(' ')

/**
 * A CheXpert caption.
 *
 * @param findings a value for each of {@link CHEXPERT_FINDINGS}; 1 is positive, 0 negative, anything else neither
 */
export function chexpertCaption(findings: ArrayLike<number>, style: ChestStyle = 'plain'): string {
  const named = (value: number, last: number) =>
    CHEXPERT_FINDINGS.filter((_, index) => index < last && findings[index] === value)
      .join(' ')
      .toLowerCase()
  const positive = named(POSITIVE, CHEXPERT_FINDINGS.length) || NO_FINDING
  if (style === 'prompt') return positive
  if (style === 'plain') return join(CHEST_TEMPLATE, positive)
  // that there is not no finding is never said
  return join(CHEST_TEMPLATE, positive, NEGATIVE_TEMPLATE, named(NEGATIVE, CHEXPERT_FINDINGS.length - 1))
}

/** A label that is itself the absence of the others: it has no negation. */
export const isNoFinding = (name: string): boolean => findingWords(name) === NO_FINDING

/** 'Pleural_Thickening' as captions have it. */
export const findingWords = (name: string): string => name.replaceAll('_', ' ').toLowerCase()

/** A ChestX-ray14 caption. Its tables state no negatives, so there is no style that names them. */
export function nihCaption(findings: readonly string[], style: 'plain' | 'prompt' = 'plain'): string {
  const named = findings.map(findingWords).join(' ') || NO_FINDING
  return style === 'prompt' ? named : join(CHEST_TEMPLATE, named)
}

/** A prompt for each finding, in the order given. With the style 'prompt' without the template. */
export function chestPrompts(findings: readonly string[], style: ChestStyle = 'plain'): ClassPrompt[] {
  return findings.map((name) => ({
    name,
    prompts: [style === 'prompt' ? findingWords(name) : join(CHEST_TEMPLATE, findingWords(name))],
  }))
}

/** plain: 'no findings' against 'pneumonia'; published: against 'pneumothorax', an error of the published code; prompt: plain's without the template. */
export const RSNA_STYLES = ['plain', 'published', 'prompt'] as const
export type RsnaStyle = (typeof RSNA_STYLES)[number]

/** Of the classes 0 and 1. */
export function rsnaPrompts(style: RsnaStyle = 'plain'): ClassPrompt[] {
  const texts = ['no findings', style === 'published' ? 'pneumothorax' : 'pneumonia']
  return ['no findings', 'pneumonia'].map((name, index) => ({
    name,
    prompts: [style === 'prompt' ? texts[index]! : join(CHEST_TEMPLATE, texts[index]!)],
  }))
}
