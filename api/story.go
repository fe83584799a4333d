package api

import (
	"context"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// TokenStory is GET /v1/tokens/{serial}/story.
func (s *Server) TokenStory(c echo.Context, serial Serial, params TokenStoryParams) error {
	return story(c, params.Realm, serial, params.Cursor, params.Limit, s.cfg.Core.TokenStory)
}

// UserStory is GET /v1/users/{name}/story.
func (s *Server) UserStory(c echo.Context, name UserName, params UserStoryParams) error {
	return story(c, params.Realm, name, params.Cursor, params.Limit, s.cfg.Core.UserStory)
}

func story(c echo.Context, realm *string, of string, cursor *string, limit *int,
	tell func(ctx context.Context, p tokens.Principal, realm, of string, before int64, limit int) ([]tokens.StoryItem, int64, error),
) error {
	p, err := pageOf(cursor, limit)
	if err != nil {
		return err
	}
	list, next, err := tell(c.Request().Context(), who(c), value(realm), of, p.mark, p.limit)
	return reply(c, StoryPage{Items: views(list, storyView), Next: cursorOf(next)}, err)
}

func storyView(i *tokens.StoryItem) StoryItem {
	v := StoryItem{
		Time: instant(i.Time), Action: i.Action, Outcome: i.Outcome, Actor: i.Actor,
		User: i.User, Serial: i.Serial, Text: i.Text, Count: i.Count,
	}
	if i.Count > 1 {
		v.Until = unlessZero(i.Until)
	}
	return v
}
