import type { GrayImage } from '../images/gray.js'

/** What a folder of phantoms is made from: the same settings give the same bytes. */
export interface PhantomSettings {
  readonly kind: 'chexpert' | 'rsna' | 'embed'
  readonly patients: number
  readonly seed: number
  /** CheXpert only: patients for each of the five competition findings who have that one alone, in train.csv. */
  readonly fiveWay: number
}

/** One file with an image, drawn only when asked for. */
export interface PhantomImage {
  /** Below the folder, with '/'. */
  readonly path: string
  /** What a person who looks at it should know. */
  readonly caption: string
  draw(): GrayImage
  encode(image: GrayImage): Promise<Buffer>
}

export interface PhantomTable {
  readonly path: string
  /** Header first, without line ends. */
  readonly lines: Iterable<string>
}

/** A data set's layout. Patients are independent: what one has does not depend on how many there are. */
export interface PhantomKind {
  /** The most patients that its names have room for. */
  readonly most: number
  /** Numbers of all patients, those for validation and five-way tests included. */
  patients(settings: PhantomSettings): number[]
  images(settings: PhantomSettings, patient: number): PhantomImage[]
  tables(settings: PhantomSettings): PhantomTable[]
}
