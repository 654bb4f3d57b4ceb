import type { ClassPrompt } from '../sample.js'
import { words } from './words.js'

/*
 * Captions of mammograms (EMBED), made from its metadata and clinical tables. Published: datasets/embed_dataset.py, constants_val.py
 * (github.com/XYPB/CLEFT): texts with punctuation, of which captions keep the words, and class prompts everything.
 */

/**
 * default: side, view, density, BI-RADS; simple: density, BI-RADS; natural: whole sentences on patient, image and findings; structural: a
 * report with headings.
 */
export const EMBED_STYLES = ['default', 'simple', 'natural', 'structural'] as const
export type EmbedStyle = (typeof EMBED_STYLES)[number]

interface Assessment {
  readonly letter: string
  readonly description: string
  readonly finding: string
  readonly overall: string
}

/** By BI-RADS category, 0 to 6. */
const ASSESSMENTS: readonly Assessment[] = [
  {
    letter: 'A',
    description: 'additional imaging required',
    finding: 'an additional imaging is recommended',
    overall: 'Additional imaging is recommended',
  },
  {
    letter: 'N',
    description: 'negative',
    finding: 'no significant masses, calcification, or other abnormalities are present',
    overall: 'Negative',
  },
  { letter: 'B', description: 'benign finding', finding: 'a benign finding is present', overall: 'Benign' },
  {
    letter: 'P',
    description: 'probably benign finding',
    finding: 'a probably benign finding is present',
    overall: 'Probably benign',
  },
  {
    letter: 'S',
    description: 'suspicious abnormality',
    finding: 'a suspicious abnormality is present',
    overall: 'Suspicious abnormality',
  },
  {
    letter: 'M',
    description: 'highly suggestive of malignancy',
    finding: 'a highly suggestive of malignancy is present, a biopsy is recommended',
    overall: 'Highly suggestive of malignancy',
  },
  {
    letter: 'K',
    description: 'known biopsy-proven malignancy',
    finding: 'a known biopsy-proven malignant mass is present',
    overall: 'Known biopsy-proven malignancy',
  },
]

/** By breast tissue density, 1 to 5. The fifth is no class. */
const DENSITIES = [
  'almost entirely fat',
  'scattered fibroglandular densities',
  'heterogeneously dense',
  'extremely dense',
  'normal male dense',
] as const
export const MALE_DENSITY = 5

const SIDES: Readonly<Record<string, string>> = { L: 'left', R: 'right', B: 'bilateral' }

/** What a caption is made of; null where the tables say nothing. */
export interface EmbedFacts {
  /** StudyDescription. */
  readonly procedure: string | null
  /** FinalImageType. */
  readonly imageType: string | null
  /** 'L', 'R', 'B'. */
  readonly side: string | null
  readonly view: string | null
  /** In whole years. */
  readonly age: number | null
  readonly race: string | null
  readonly ethnicity: string | null
  /** 1 to 5. */
  readonly density: number | null
  /** BI-RADS category, 0 to 6. */
  readonly birads: number | null
  /** In words, by the legend. */
  readonly massShape: string | null
  readonly massDensity: string | null
  readonly calcification: string | null
  readonly calcificationDistribution: string | null
}

/** The BI-RADS category of a letter (A N B P S M K), or null. */
export function biradsOf(letter: string): number | null {
  const index = ASSESSMENTS.findIndex((assessment) => assessment.letter === letter)
  return index < 0 ? null : index
}

const BASE = 'This is a breast 2D full-field digital mammogram of a patient '

function reasonOf(procedure: string | null): string {
  const lower = procedure?.toLowerCase() ?? ''
  if (lower.includes('screen')) return 'screening'
  return lower.includes('diag') ? 'diagnostic' : ''
}

function patientText({ race, ethnicity, age }: EmbedFacts): string {
  const ethnic = ethnicity === 'Hispanic or Latino' ? ethnicity : 'Non-Hispanic or Latino'
  return `This patient is ${race ?? 'unknown'}, ${ethnic}, and ${age ?? 'unknown'} years old.  `
}

const sideWord = (side: string | null): string => SIDES[side ?? ''] ?? 'unknown'

/** The part of a caption about the image and the patient, with its punctuation. */
function imageText(facts: EmbedFacts, style: EmbedStyle): string {
  const { side, view, procedure } = facts
  const reason = reasonOf(procedure)
  switch (style) {
    case 'simple':
      return BASE
    case 'default': {
      const sideText = side !== null && side in SIDES ? `on side ${SIDES[side]} ` : ''
      return `${BASE}${sideText}${view === null ? '' : `with view ${view} `}`
    }
    case 'natural':
      return `This is a breast 2D full-field digital ${reason} mammogram of a patient. ${patientText(facts)}This mammogram is for ${sideWord(side)} breast with ${view ?? 'unknown'} view.  `
    case 'structural': {
      const procedureText = procedure === null ? '' : `Procedure reported: ${procedure}; `
      const reasonText = reason === '' ? '' : `Reason for procedure: ${reason}; `
      const imageSentence = `This is a ${facts.imageType ?? 'unknown'} full-field digital mammogram of the ${sideWord(side)} breast with ${view ?? 'unknown'} view. `
      return `${procedureText}${reasonText}Patient info: ${patientText(facts)}Image info: ${imageSentence} `
    }
  }
}

/** What was seen, in sentences: the natural and the structural style. */
function findingsText(facts: EmbedFacts, density: number, birads: number, headings: boolean): string {
  const { massShape, massDensity, calcification, calcificationDistribution } = facts
  const { finding, description, overall } = ASSESSMENTS[birads]!
  const heading = (text: string) => (headings ? `${text}: ` : '')
  const sensitivity = density === 3 || density === 4 ? 'This may lower the sensitivity of mammography. ' : ''
  const mass = massShape !== null && massDensity !== null ? `The mass is ${massShape} and ${massDensity}. ` : ''
  const calcifications =
    calcification !== null && calcificationDistribution !== null
      ? `A ${calcificationDistribution} ${calcification} calcification is present. `
      : ''
  return [
    `${heading('Breast composition')}The breast is ${DENSITIES[density - 1]}. ${sensitivity}`,
    `${heading('Findings')}The mammogram shows that ${finding}. ${mass}${calcifications}`,
    `Impressions: BI-RADS Category ${birads}: ${description}. `,
    headings ? `Overall Assessment: ${overall}.` : '',
  ].join('')
}

/** The caption, or null where the image has no density or no BI-RADS category (structural: also no procedure, or none of screening and diagnostic). */
export function embedCaption(facts: EmbedFacts, style: EmbedStyle = 'default'): string | null {
  const { density, birads, procedure } = facts
  if (density === null || birads === null) return null
  if (style === 'structural' && (procedure === null || reasonOf(procedure) === '')) return null
  const found =
    style === 'natural' || style === 'structural'
      ? findingsText(facts, density, birads, style === 'structural')
      : `with breast tissue density ${density}: ${DENSITIES[density - 1]}. with BIRADS score ${birads}: ${ASSESSMENTS[birads]!.description}.`
  return words(imageText(facts, style) + found)
}

/** What stands before each class prompt for this image, where prompts are made for every image. */
export function embedPromptPrefix(facts: EmbedFacts, style: EmbedStyle = 'default'): string {
  return imageText(facts, style).replaceAll('\n', ' ').toLowerCase()
}

/** The class prompts, with the published punctuation: of the BI-RADS categories 0 to 6, or of the densities 1 to 4. */
export function embedPrompts(labels: 'birads' | 'density'): ClassPrompt[] {
  const prompt = (text: string) => [`${BASE}${text}.`.toLowerCase()]
  if (labels === 'birads') {
    return ASSESSMENTS.map(({ description }, category) => ({
      name: `BI-RADS ${category}`,
      prompts: prompt(`with BIRADS score ${category}: ${description}`),
    }))
  }
  return DENSITIES.slice(0, MALE_DENSITY - 1).map((description, index) => ({
    name: `density ${index + 1}`,
    prompts: prompt(`with breast tissue density ${index + 1}: ${description}`),
  }))
}
