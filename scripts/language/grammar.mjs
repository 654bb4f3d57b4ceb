// Report sentences of chest X-rays and mammograms, drawn from a grammar of our own: what the small language model is trained on.
// Nothing here is from a patient: facts are drawn first, and then some texts that say them.
//
// In a rule, `<name>` is one of the alternatives of rule `name`, `<name?>` is that or nothing, and `<@name>` is the same each
// time within a finding. Words in capitals are put in by the functions below.
import * as chest from './chest.mjs'
import * as mammography from './mammography.mjs'

/** Draws, and counts how surprising what it drew was. */
class Draw {
  nats = 0

  constructor(random) {
    this.random = random
  }

  pick(items) {
    const drawn = this.random.pick(items)
    this.nats -= Math.log(items.filter((item) => item === drawn).length / items.length)
    return drawn
  }

  chance(probability) {
    const drawn = this.random.chance(probability)
    this.nats -= Math.log(drawn ? probability : 1 - probability)
    return drawn
  }

  /** An index, as often as the weights say. */
  weighted(weights) {
    const total = weights.reduce((sum, each) => sum + each, 0)
    let left = this.random.uniform(0, total)
    let index = 0
    while (index < weights.length - 1 && left >= weights[index]) left -= weights[index++]
    this.nats -= Math.log(weights[index] / total)
    return index
  }

  shuffle(items) {
    for (let count = 2; count <= items.length; count += 1) this.nats += Math.log(count)
    return this.random.shuffle(items)
  }
}

/** A text of a template: see above. */
function expand(rules, template, draw, known = new Map()) {
  return template.replaceAll(/<(@?)(\w+)(\??)>/g, (_, same, name, optional) => {
    const alternatives = rules[name]
    if (alternatives === undefined) throw new Error(`expected a rule '${name}', but there is none: ${template}`)
    if (alternatives.join('') === '' || (optional !== '' && !draw.chance(0.5))) return ''
    if (same !== '' && known.has(name)) return known.get(name)
    const text = expand(rules, draw.pick(alternatives), draw, known)
    if (same !== '') known.set(name, text)
    return text
  })
}

/** One space between words, none before a comma, a colon or a full stop; 'an' before vowels. */
const tidy = (text) =>
  text
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/ ([,:.])/g, '$1')
    .replaceAll(/\ba (?=[aeio])/g, 'an ')
    .trim()

const sentences = (texts) => `${texts.join('. ')}.`
const bare = (name) => name.replace(/^an? /, '')

/** What is said of a finding, ready for expand(). */
function findingOf(name) {
  const own = chest.findings[name]
  return own.same === undefined ? own : chest.findings[own.same]
}

/** An object whose values are drawn when a text first says them: what no text says surprises nobody. */
function lazily(makers) {
  const facts = {}
  for (const [name, make] of Object.entries(makers)) {
    Object.defineProperty(facts, name, {
      configurable: true,
      get() {
        const value = make(facts)
        Object.defineProperty(facts, name, { value })
        return value
      },
    })
  }
  return facts
}

function chestFacts(draw, captions) {
  const isCheXpert = draw.chance(0.75)
  const names = isCheXpert ? captions.CHEXPERT_FINDINGS.slice(0, -1) : captions.NIH_FINDINGS.map(spaced)
  const isNormal = draw.chance(0.15)
  return lazily({
    isCheXpert: () => isCheXpert,
    positive: () => (isNormal ? [] : names.filter((name) => draw.chance(chest.findings[name].rate))),
    negative: ({ positive }) => names.filter((name) => !positive.includes(name) && draw.chance(isNormal ? 0.4 : 0.15)),
    uncertain: ({ positive, negative }) =>
      isNormal ? [] : names.filter((name) => ![...positive, ...negative].includes(name) && draw.chance(0.05)),
    // what expand() knows, by finding
    known: () => new Map(names.map((name) => [name, new Map()])),
  })
}

const spaced = (name) => name.replaceAll('_', ' ')

function say(rule, name, facts, draw, other) {
  const { places, grades, names } = findingOf(name)
  const chosen = draw.pick(names)
  const template = draw
    .pick(chest.rules[rule])
    .replaceAll('NAME', rule.startsWith('negative') ? bare(chosen) : chosen)
    .replaceAll('OTHER', () => bare(draw.pick(findingOf(other).names)))
    .replaceAll('PLACE', places)
    .replaceAll('@grade', `@${grades}`)
  return tidy(expand(chest.rules, template, draw, facts.known.get(name)))
}

/** One of the whole sentences that a finding has of its own. */
function sayOwn(list, name, facts, draw) {
  const finding = findingOf(name)
  const template = draw.pick(finding[list]).replaceAll('@grade', `@${finding.grades}`)
  return tidy(expand(chest.rules, template, draw, facts.known.get(name)))
}

function affirm(name, facts, draw) {
  if (name === 'Support Devices' || draw.chance(0.35)) return sayOwn('said', name, facts, draw)
  return say('positive', name, facts, draw)
}

function deny(names, facts, draw) {
  const said = []
  for (let index = 0; index < names.length; index += 1) {
    if (index + 1 < names.length && draw.chance(0.4)) {
      said.push(say('negatives', names[index], facts, draw, names[index + 1]))
      index += 1
    } else if (draw.chance(0.35)) said.push(sayOwn('denied', names[index], facts, draw))
    else said.push(say('negative', names[index], facts, draw))
  }
  return said
}

const plain = (rule, draw) => tidy(expand(chest.rules, `<${rule}>`, draw))

function chestReport(facts, draw) {
  const said = [
    ...facts.positive.map((name) => () => [affirm(name, facts, draw)]),
    ...facts.uncertain.map((name) => () => [say('uncertain', name, facts, draw)]),
  ]
  if (facts.negative.length > 0) said.push(() => deny(facts.negative, facts, draw))
  const texts = draw.shuffle(said).flatMap((each) => each())
  if (draw.chance(0.3)) texts.unshift(plain('opening', draw))
  if (facts.positive.length === 0) {
    for (const rule of ['lungsClear', 'heartNormal', 'mediastinumNormal', 'bonesNormal']) {
      if (draw.chance(0.3)) texts.push(plain(rule, draw))
    }
    texts.push(plain('normal', draw))
  }
  return sentences(texts)
}

/** The positive findings by other names than captions have: 'findings suggesting interstitial edema and pleural fluid'. */
function chestListing(facts, draw) {
  const named = draw.shuffle(facts.positive).map((name) => {
    const { names, grades, places } = findingOf(name)
    const graded = `<@${grades}?> ${draw.pick(names)} <${places}?>`
    return tidy(expand(chest.rules, graded, draw, facts.known.get(name)))
  })
  const all = named.length === 0 ? plain('normal', draw) : named.join(draw.pick([', ', ' and ', ' ']))
  return tidy(`${plain('listing', draw)} ${all}`)
}

function chestCaption(facts, style, draw, captions) {
  const { isCheXpert, positive, negative } = facts
  if (!isCheXpert)
    return captions.nihCaption(
      positive.map((name) => name.replaceAll(' ', '_')),
      style === 'negative' ? 'plain' : style,
    )
  const isClear = positive.every((name) => name === 'Support Devices')
  const values = captions.CHEXPERT_FINDINGS.map((name) =>
    positive.includes(name) ? 1 : negative.includes(name) ? 0 : Number.NaN,
  )
  if (isClear && positive.length > 0) values[values.length - 1] = draw.chance(0.7) ? 1 : Number.NaN
  return captions.chexpertCaption(values, style)
}

/** Texts on one chest X-ray. The last is often the bare list of its findings, so that a text's end knows what the text said. */
function chestTexts(draw, captions) {
  if (draw.chance(0.04)) {
    const { prompts } = draw.pick(captions.rsnaPrompts(draw.pick(captions.RSNA_STYLES)))
    return prompts
  }
  const facts = chestFacts(draw, captions)
  const texts = []
  while (texts.length === 0 || (texts.length < 3 && draw.chance(0.4))) {
    const kind = draw.weighted([0.32, 0.25, 0.27, 0.1, 0.06])
    if (kind === 0) texts.push(chestReport(facts, draw))
    if (kind === 1) texts.push(chestListing(facts, draw))
    if (kind === 2) texts.push(chestCaption(facts, 'plain', draw, captions))
    if (kind === 3) texts.push(chestCaption(facts, 'negative', draw, captions))
    if (kind === 4) texts.push(chestCaption(facts, 'prompt', draw, captions))
  }
  if (draw.chance(0.7)) texts.push(chestCaption(facts, 'prompt', draw, captions))
  return texts
}

function mammogramFacts(draw) {
  const { tables, birads, densities, rules } = mammography
  const isLesion = ({ birads: category }) => category !== 1
  return lazily({
    ...Object.fromEntries(Object.entries(tables).map(([name, values]) => [name, () => draw.pick(values)])),
    age: () => 30 + draw.pick(AGES),
    density: () => 1 + draw.weighted(densities),
    birads: () => draw.weighted(birads),
    hasMass: (facts) => isLesion(facts) && draw.chance(0.6),
    hasCalcifications: (facts) => isLesion(facts) && draw.chance(facts.hasMass ? 0.25 : 0.8),
    massShape: ({ hasMass }) => (hasMass ? draw.pick(rules.shape) : null),
    massDensity: ({ hasMass }) => (hasMass ? draw.pick(rules.massDensity) : null),
    calcification: ({ hasCalcifications }) => (hasCalcifications ? draw.pick(rules.calcification) : null),
    calcificationDistribution: ({ hasCalcifications }) => (hasCalcifications ? draw.pick(rules.distribution) : null),
  })
}

const AGES = Array.from({ length: 60 }, (_, index) => index)

function mammogramReport(facts, draw) {
  const words = {
    SIDE: () => (facts.side === 'L' ? 'left' : 'right'),
    VIEW: () => facts.view.toLowerCase(),
    SHAPE: () => facts.massShape,
    MASSDENSITY: () => facts.massDensity,
    CALCIFICATION: () => facts.calcification,
    DISTRIBUTION: () => facts.calcificationDistribution,
    NUMBER: () => String(facts.birads),
    WORDS: () => text(`birads${facts.birads}`),
  }
  const known = new Map()
  const text = (rule) => {
    const expanded = expand(mammography.rules, `<${rule}>`, draw, known)
    return tidy(expanded.replaceAll(/[A-Z]{4,}/g, (word) => words[word]?.() ?? word))
  }
  const texts = []
  if (draw.chance(0.5)) texts.push(text('opening'))
  if (draw.chance(0.8)) texts.push(text(`density${facts.density}`))
  if (facts.hasMass) texts.push(text('mass'))
  if (facts.hasCalcifications) texts.push(text('calcifications'))
  const hasLesion = facts.hasMass || facts.hasCalcifications
  if (facts.birads > 1 && (!hasLesion || draw.chance(0.1))) texts.push(text('otherFinding'))
  if (facts.birads === 1 || facts.birads === 2) if (draw.chance(0.7)) texts.push(text('clear'))
  texts.push(text('assessment'))
  return sentences(texts)
}

const EMBED_STYLE_WEIGHTS = [0.4, 0.25, 0.2, 0.15]

function mammogramTexts(draw, captions) {
  const facts = mammogramFacts(draw)
  const style = captions.EMBED_STYLES[draw.weighted(EMBED_STYLE_WEIGHTS)]
  const kind = draw.weighted([0.45, 0.35, 0.2])
  if (kind === 0) {
    const texts = [captions.embedCaption(facts, style)]
    return draw.chance(0.3) ? [...texts, mammogramReport(facts, draw)] : texts
  }
  if (kind === 1) {
    const report = mammogramReport(facts, draw)
    return draw.chance(0.4) ? [report, captions.embedCaption(facts, 'simple')] : [report]
  }
  // a class prompt, as it is and behind what stands before each image's
  const labels = draw.pick(['birads', 'density'])
  const index = labels === 'birads' ? facts.birads : Math.min(facts.density, 4) - 1
  const prompt = captions.embedPrompts(labels)[index].prompts[0]
  return [
    draw.chance(0.5)
      ? prompt
      : tidy(`${captions.embedPromptPrefix(facts, style)}${prompt.slice(prompt.indexOf(' with ') + 1)}`),
  ]
}

/**
 * Some texts on one image, and how surprising they were in nats: the choices that the grammar made.
 *
 * @param random one of src/data/random.ts
 * @param captions src/data/captions: its templates are part of the grammar
 */
export function drawRecord(random, captions) {
  const draw = new Draw(random)
  const texts = draw.chance(0.72) ? chestTexts(draw, captions) : mammogramTexts(draw, captions)
  return { texts: texts.map((text) => text.toLowerCase()), nats: draw.nats }
}
