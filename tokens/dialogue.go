package tokens

// Dialogue is a kind of conversation that an attempt may become, where the client lets
// it: instead of an accept or a reject comes a question, and its answer is an attempt
// with the State of the Challenge.
type Dialogue string

// The dialogues.
const (
	// DialoguePIN asks for the PIN first, and then for the code. Everybody is asked for
	// a code, whatever was typed before, so that nobody learns whether that was a PIN.
	DialoguePIN Dialogue = "pin"

	// DialogueNextCode asks whoever typed a code far ahead of the window for the next
	// one, and the two resynchronise the token. The question itself says that the first
	// was a code of the user's: it is asked of nobody who is throttled or locked, costs a
	// failure, and only one is open for a user.
	DialogueNextCode Dialogue = "next_code"

	// DialogueNewPIN has a user whose PIN must be changed choose another one, after the
	// PIN and a code were right.
	DialogueNewPIN Dialogue = "new_pin"
)

var everyDialogue = []Dialogue{DialoguePIN, DialogueNextCode, DialogueNewPIN}

// Question is what a Challenge asks for.
type Question string

// The questions.
const (
	QuestionCode        Question = "code"          // of the token, after the PIN
	QuestionNextCode    Question = "next_code"     // the one that the token shows after the one that was typed
	QuestionNewPIN      Question = "new_pin"       // a new PIN, as the old one must be changed
	QuestionBadPIN      Question = "bad_pin"       // another one, as the realm's rules forbid that one
	QuestionNewPINAgain Question = "new_pin_again" // the same PIN, against slips
)

// Challenge is a question in the place of an accept or a reject.
type Challenge struct {
	Question Question

	// State goes with the answer. It is good once, for a few minutes, from the same client
	// and for the same user, on every node. Nothing can be read from it. At most 253
	// bytes, as a RADIUS attribute is (RFC 2865, section 5.24), and of letters, digits, "-"
	// and "_" alone: not every gateway gives any others back.
	State []byte
}
