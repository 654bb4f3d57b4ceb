import type { GrayImage } from '../../data/images/gray.js'
import { digits } from '../words.js'
import { type Html, html } from './html.js'
import { colorBar, dataUri, grayJpeg, type Heat, overlayJpeg, type Tile, tileSheet } from './images.js'

/*
 * Single images in a report: what was retrieved for some, and what the model looked at.
 */

export interface ImageToTextExample {
  readonly direction: 'image-to-text'
  /** Null: it is not shown. */
  readonly image: GrayImage | null
  readonly caption: string
  /** Of the first caption that is right, from 1. */
  readonly rank: number
  /** The first ones found. */
  readonly found: readonly { readonly caption: string; readonly score: number; readonly hit: boolean }[]
}

export interface TextToImageExample {
  readonly direction: 'text-to-image'
  readonly caption: string
  readonly rank: number
  readonly found: readonly {
    readonly image: GrayImage | null
    readonly caption: string
    readonly score: number
    readonly hit: boolean
  }[]
}

export type RetrievalExample = ImageToTextExample | TextToImageExample

export interface MapExample {
  /** As the model saw it: the maps lie on this very picture. */
  readonly image: GrayImage
  /** Below the data set's root; hashed in what is written. */
  readonly path: string
  /** The names of its true classes or findings. */
  readonly truth: readonly string[]
  readonly maps: readonly {
    readonly prompt: string
    readonly kind: 'attention' | 'gradient'
    /** How well image and prompt fit, on the scale of the predictions; null: the map is of none. */
    readonly score: number | null
    readonly heat: Heat
  }[]
}

/** What goes into the page, and the same as a picture; without images no picture. */
export interface Shown {
  readonly body: Html
  readonly png: Buffer | null
}

const mark = (hit: boolean) => (hit ? html`<span class="right">right</span>` : html`<span class="wrong">wrong</span>`)

export async function showRetrieval(example: RetrievalExample, withImages: boolean): Promise<Shown> {
  return example.direction === 'image-to-text'
    ? showImageToText(example, withImages)
    : showTextToImage(example, withImages)
}

async function showImageToText(
  { image, caption, rank, found }: ImageToTextExample,
  withImages: boolean,
): Promise<Shown> {
  const picture = withImages && image !== null ? await grayJpeg(image) : null
  const list = html`<div>
<p><strong>Its caption:</strong> ${caption}</p>
<ol>${found.map(({ caption: own, score, hit }) => html`<li>${own} <span class="soft">(cosine ${digits(score)})</span> ${mark(hit)}</li>`)}</ol>
</div>`
  const body = html`<div class="example"><h3>Image to text: the first right caption is number ${rank}</h3>
<div class="pair">${picture && html`<figure><img src="${dataUri(picture, 'image/jpeg')}" alt="The image that captions were searched for"></figure>`}${list}</div></div>`
  if (!picture) return { body, png: null }
  const lines = [
    `own: ${caption}`,
    ...found.map((each, k) => `${k + 1} ${each.hit ? 'right' : 'wrong'}: ${each.caption}`),
  ]
  return { body, png: await tileSheet([[{ image: picture, lines }]]) }
}

async function showTextToImage({ caption, rank, found }: TextToImageExample, withImages: boolean): Promise<Shown> {
  const images = found.flatMap(({ image }) => image ?? [])
  const pictures = withImages && images.length === found.length ? await Promise.all(images.map(grayJpeg)) : null
  const body = html`<div class="example"><h3>Text to image: the first right image is number ${rank}</h3>
<p><strong>Searched:</strong> ${caption}</p>
<div class="tiles">${found.map(
    ({ caption: own, score, hit }, k) =>
      html`<figure>${
        pictures && html`<img src="${dataUri(pictures[k]!, 'image/jpeg')}" alt="Image number ${k + 1} that was found">`
      }<figcaption>${k + 1}. ${mark(hit)}, cosine ${digits(score)}<br>${own}</figcaption></figure>`,
  )}</div></div>`
  if (!pictures) return { body, png: null }
  const tiles = found.map(({ caption: own, hit }, k): Tile => {
    return { image: pictures[k]!, lines: [`${k + 1} ${hit ? 'right' : 'wrong'}`, own] }
  })
  return { body, png: await tileSheet([[{ image: null, lines: [`searched: ${caption}`] }], tiles]) }
}

/** @param name how the image is called in what is written */
export async function showMaps({ image, truth, maps }: MapExample, name: string): Promise<Shown> {
  const plain = await grayJpeg(image)
  const overlays = await Promise.all(maps.map(({ heat }) => overlayJpeg(image, heat)))
  const what = truth.length > 0 ? truth.join(', ') : 'no class'
  const body = html`<div class="example"><h3>${name}: ${what}</h3>
<div class="tiles"><figure><img src="${dataUri(plain, 'image/jpeg')}" alt="The image as the model sees it"><figcaption>As the model sees it</figcaption></figure>${maps.map(
    ({ prompt, kind, score }, k) =>
      html`<figure><img src="${dataUri(overlays[k]!, 'image/jpeg')}" alt="Map of ${kind} for the prompt ${prompt}"><figcaption>\u201c${prompt}\u201d<br>${score === null ? kind : `${kind}, score ${digits(score)}`}</figcaption></figure>`,
  )}</div></div>`
  const tiles = maps.map(({ prompt, kind, score }, k): Tile => {
    return { image: overlays[k]!, lines: [prompt, score === null ? kind : `${kind}, score ${digits(score)}`] }
  })
  return { body, png: await tileSheet([[{ image: plain, lines: [name, what] }, ...tiles]]) }
}

export async function mapLegend(): Promise<Html> {
  return html`<figure><img src="${dataUri(await colorBar(), 'image/png')}" width="256" height="12" alt="Colours from black over red to pale yellow"><figcaption>From the lowest (left, clear) to the highest value (right) of each map: colours
compare places in one image, not images. A map shows what a score depends on in this model; it does not outline disease.</figcaption></figure>`
}
