package keyboard

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// keysymNames are the names that X gives to characters which are no name themselves, as
// far as keymaps of Latin layouts have them, each before its character.
const keysymNames = `
exclam ! quotedbl " numbersign # dollar $ percent % ampersand & apostrophe ' parenleft ( parenright )
asterisk * plus + comma , minus - period . slash / colon : semicolon ; less < equal = greater > question ?
at @ bracketleft [ backslash \ bracketright ] asciicircum ^ underscore _ braceleft { bar |
braceright } asciitilde ~ exclamdown ¡ cent ¢ sterling £ currency ¤ yen ¥ brokenbar ¦ section § diaeresis ¨
copyright © ordfeminine ª guillemotleft « notsign ¬ registered ® macron ¯ degree ° plusminus ± twosuperior ²
threesuperior ³ acute ´ mu µ paragraph ¶ periodcentered · cedilla ¸ onesuperior ¹ masculine º guillemotright »
onequarter ¼ onehalf ½ threequarters ¾ questiondown ¿ Agrave À Aacute Á Acircumflex Â Adiaeresis Ä Aring Å
AE Æ Ccedilla Ç Egrave È Eacute É Igrave Ì Iacute Í Icircumflex Î Idiaeresis Ï ETH Ð Ntilde Ñ Ograve Ò
Oacute Ó Ocircumflex Ô Odiaeresis Ö multiply × Oslash Ø Ugrave Ù Uacute Ú Ucircumflex Û Udiaeresis Ü THORN Þ
ssharp ß agrave à aacute á acircumflex â adiaeresis ä aring å ae æ ccedilla ç egrave è eacute é igrave ì
iacute í icircumflex î idiaeresis ï eth ð ntilde ñ ograve ò oacute ó ocircumflex ô odiaeresis ö division ÷
oslash ø ugrave ù uacute ú ucircumflex û udiaeresis ü yacute ý thorn þ ydiaeresis ÿ Amacron Ā amacron ā
Aogonek Ą aogonek ą Cacute Ć cacute ć Ccaron Č ccaron č Dstroke Đ dstroke đ Emacron Ē emacron ē Eabovedot Ė
eabovedot ė Eogonek Ę eogonek ę ecaron ě Gbreve Ğ gbreve ğ Gcedilla Ģ gcedilla ģ Hstroke Ħ hstroke ħ Imacron Ī
imacron ī Iogonek Į iogonek į Iabovedot İ idotless ı Kcedilla Ķ kcedilla ķ kra ĸ Lcedilla Ļ lcedilla ļ
Lstroke Ł lstroke ł Nacute Ń nacute ń Ncedilla Ņ ncedilla ņ ENG Ŋ eng ŋ Omacron Ō omacron ō Odoubleacute Ő
odoubleacute ő OE Œ oe œ Rcedilla Ŗ rcedilla ŗ rcaron ř Sacute Ś sacute ś Scedilla Ş scedilla ş Scaron Š
scaron š Tslash Ŧ tslash ŧ Umacron Ū umacron ū uring ů Udoubleacute Ű udoubleacute ű Uogonek Ų uogonek ų
Zacute Ź zacute ź Zabovedot Ż zabovedot ż Zcaron Ž zcaron ž SCHWA Ə EZH Ʒ schwa ə ezh ʒ caron ˇ breve ˘
abovedot ˙ ogonek ˛ doubleacute ˝ Greek_PI Π Greek_OMEGA Ω Greek_pi π endash – emdash — leftsinglequotemark ‘
rightsinglequotemark ’ singlelowquotemark ‚ leftdoublequotemark “ rightdoublequotemark ” doublelowquotemark „
ellipsis … permille ‰ EuroSign € trademark ™ oneeighth ⅛ threeeighths ⅜ fiveeighths ⅝ seveneighths ⅞
leftarrow ← uparrow ↑ rightarrow → downarrow ↓ infinity ∞ logicaland ∧ logicalor ∨ approxeq ≈ notequal ≠
lessthanequal ≤ greaterthanequal ≥ horizconnector ─
`

// keysyms are the characters by their names in a keymap.
func keysyms() map[string]rune {
	words := strings.Fields(keysymNames)
	all := make(map[string]rune, len(words)/2+3)
	for i := 0; i+1 < len(words); i += 2 {
		r, _ := utf8.DecodeRuneInString(words[i+1])
		all[words[i]] = r
	}
	// These three cannot stand in the list.
	all["space"], all["nobreakspace"], all["grave"] = ' ', '\u00a0', '`'
	return all
}

// keysym is the character that a keymap calls so: a digit or letter is its own name, and
// U20AC is the character of that number.
func keysym(name string, named map[string]rune) (rune, bool) {
	if r, ok := named[name]; ok {
		return r, true
	}
	if r, size := utf8.DecodeRuneInString(name); size == len(name) && r != utf8.RuneError {
		return r, true
	}
	if digits, ok := strings.CutPrefix(name, "U"); ok && len(digits) >= 4 {
		if n, err := strconv.ParseUint(digits, 16, 21); err == nil && utf8.ValidRune(rune(n)) {
			return rune(n), true
		}
	}
	return 0, false
}
