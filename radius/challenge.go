package radius

import (
	"watchword/tokens"
)

// maxValue is how many bytes one attribute holds (RFC 2865, section 5).
const maxValue = 253

// questions are the texts that go with questions where the client has none of its own,
// and which of them are answered with a PIN.
var questions = map[tokens.Question]struct {
	text string
	pin  bool
}{
	tokens.QuestionCode:        {"Enter the code that your token shows.", false},
	tokens.QuestionNextCode:    {"Wait until your token shows another code, and enter that.", false},
	tokens.QuestionNewPIN:      {"Your PIN must be changed. Enter a new PIN.", true},
	tokens.QuestionBadPIN:      {"That PIN is not allowed. Enter another new PIN.", true},
	tokens.QuestionNewPINAgain: {"Enter the new PIN again.", true},
}

// asks are the attributes of a question but for its State: Reply-Message, and for a PIN
// a Prompt that says not to echo it (RFC 2869, section 5.10). A code is no secret for
// long, so the gateway may do with it as it likes.
func asks(q tokens.Question, messages map[string]string) []byte {
	text, own := messages[string(q)]
	if !own {
		text = questions[q].text
	}
	b := appendText(nil, attrReplyMessage, text)
	if questions[q].pin {
		b = append(b, attrPrompt, 6, 0, 0, 0, 0) // No Echo
	}
	return b
}

// appendText adds an attribute that holds a text, and none where that is empty.
func appendText(b []byte, kind byte, text string) []byte {
	if text == "" {
		return b
	}
	text = text[:min(len(text), maxValue)]
	return append(append(b, kind, byte(2+len(text))), text...)
}
