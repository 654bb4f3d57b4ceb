import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { TextTokenizer } from '../../../src/models/text/index.js'
import { casesFolder } from './cases.js'

const folder = join(casesFolder, 'tokenizer')

interface Expected {
  pad_token: string
  input_ids: number[][]
  attention_mask: number[][]
}
const given = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8')) as {
  texts: string[]
  max_length: number
  gpt2: Expected
  bert: Expected
}

describe('the case tokenizer', () => {
  it.each(['gpt2', 'bert'] as const)('gives the ids of Python, %s', async (name) => {
    const { pad_token, input_ids, attention_mask } = given[name]
    const tokenizer = TextTokenizer.open(join(folder, `${name}.tokenizer.json`), { padToken: pad_token })
    const padded = await tokenizer.encodePadded(given.texts, { maximumLength: given.max_length })
    expect(padded.inputIds).toEqual(input_ids)
    expect(padded.attentionMask).toEqual(attention_mask)
    const ragged = await tokenizer.encode(given.texts, { maximumLength: given.max_length })
    expect(ragged).toEqual(
      input_ids.map((ids, row) => ids.slice(0, attention_mask[row]!.filter((each) => each === 1).length)),
    )
  })
})

describe('TextTokenizer', () => {
  const bert = TextTokenizer.open(join(folder, 'bert.tokenizer.json'))
  const gpt2 = TextTokenizer.open(join(folder, 'gpt2.tokenizer.json'))

  it('finds the padding token', () => {
    expect(bert.padToken).toBe(bert.tokenToId('[PAD]'))
    expect(gpt2.padToken).toBe(gpt2.tokenToId('<|endoftext|>'))
    const place = mkdtempSync(join(tmpdir(), 'cleft-tokenizer-'))
    try {
      writeFileSync(join(place, 'tokenizer.json'), readFileSync(join(folder, 'gpt2.tokenizer.json')))
      // GPT-2 pads with its end, whatever the tokenizer's own files say
      writeFileSync(join(place, 'config.json'), '{ "model_type": "gpt2", "eos_token_id": 7 }')
      writeFileSync(join(place, 'tokenizer_config.json'), '{ "pad_token": { "content": "a" } }')
      expect(TextTokenizer.open(place).padToken).toBe(7)
      writeFileSync(join(place, 'config.json'), '{ "model_type": "bert" }')
      expect(TextTokenizer.open(place).padToken).toBe(gpt2.tokenToId('a'))
    } finally {
      rmSync(place, { recursive: true })
    }
  })

  it('keeps special tokens when it cuts, and adds none where told', async () => {
    const text = 'this is a chest x ray of a patient with pneumonia'
    const [cls, sep] = [bert.tokenToId('[CLS]'), bert.tokenToId('[SEP]')]
    const [cut] = await bert.encode([text], { maximumLength: 5 })
    expect(cut).toHaveLength(5)
    expect([cut![0], cut![4]]).toEqual([cls, sep])
    const [bare] = await bert.encode([text], { specialTokens: false })
    const [whole] = await bert.encode([text])
    expect(whole).toEqual([cls, ...bare!, sep])
  })

  it('does not mix lengths up when calls overlap', async () => {
    const text = 'this is a chest x ray of a patient with pneumonia'
    const lengths = [3, 9, 4, 64, 3, 5]
    const found = await Promise.all(lengths.map((maximumLength) => gpt2.encode([text], { maximumLength })))
    const [[whole]] = [await gpt2.encode([text])]
    expect(found.map(([ids]) => ids)).toEqual(lengths.map((length) => whole!.slice(0, length)))
  })

  it('pads to the longest where no length is given, and takes no texts and empty ones', async () => {
    expect(await gpt2.encode([])).toEqual([])
    expect(await gpt2.encode([''])).toEqual([[]])
    const { inputIds, attentionMask } = await gpt2.encodePadded(['a chest x ray', ''])
    expect(inputIds[1]).toEqual(inputIds[0]!.map(() => gpt2.padToken))
    expect(attentionMask[1]!.every((each) => each === 0)).toBe(true)
  })

  it('says what is wrong', async () => {
    expect(() => TextTokenizer.open('/nowhere/tokenizer.json')).toThrow(/expected a file '\/nowhere\/tokenizer.json'/)
    expect(() => TextTokenizer.open(join(folder, 'case.json'))).toThrow(/cannot be read as such/)
    expect(() => TextTokenizer.open(join(folder, 'bert.tokenizer.json'), { padToken: '<none>' })).toThrow(
      /no '<none>'; give one/,
    )
    await expect(gpt2.encode(['a'], { maximumLength: 0 })).rejects.toThrow('maximumLength of 1 or more')
    await expect(gpt2.encode([null as unknown as string])).rejects.toThrow(
      'expected text 0 to be a string, but received null',
    )
  })
})
